"""A study: its pairs, its runs, and what cannot be compared."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.ablation.pairs import Scenes, Setting, folder_of, make_pairs
from benchmarks.ablation.real import LightFields, RealPairs
from benchmarks.ablation.runs import SETTINGS_FILE, Job, count_gpus
from benchmarks.ablation.variants import Scale, Variant
from models.training.config import TrainingConfig, differing_keys, load_config

# What a study decides, and overrides cannot.
DECIDED = ("seed", "out", "resume", "device", "data.train", "data.validation", "data.target", "data.decode")


@dataclass(frozen=True)
class Study:
    """A study: what is trained and scored.

    Attributes:
        scale: of which `recipe` and `overrides` make the base that variants change.
        data: folder for the pairs.
        photos: folder of photographs; None for those that scikit-image installs.
        real: folder of real pairs to study, too; None: none.
        light_fields: folder of light fields to study, too, moved; None: none.
        workers: runs at a time.
    """

    scale: Scale
    variants: tuple[Variant, ...]
    out: Path
    data: Path
    photos: Path | None
    device: str
    workers: int
    real: Path | None = None
    light_fields: Path | None = None

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Where pairs come from, in the order of the tables."""
        scenes = [Scenes(parallax, self.scale.pairs, self.photos) for parallax in self.scale.parallaxes]
        real = [RealPairs(self.real)] if self.real else []
        moved = [LightFields(self.light_fields)] if self.light_fields else []
        return (*scenes, *real, *moved)

    @property
    def base(self) -> TrainingConfig:
        return self._configure({})

    def _configure(self, overrides: Mapping[str, Any]) -> TrainingConfig:
        steps = load_config(self.scale.recipe, self.scale.overrides).schedule.steps
        overrides = {"schedule.boundary": steps, **overrides}  # one stage, but where a variant says otherwise
        texts = [f"{key}={json.dumps(value)}" for key, value in overrides.items()]
        return load_config(self.scale.recipe, [*self.scale.overrides, *texts])

    def configure(self, variant: Variant, decided: Mapping[str, Any] | None = None) -> TrainingConfig:
        """The training of a variant."""
        target = "sharp" if variant.target == "sharp" else "aligned"
        return self._configure(
            {"alignment.flow": "none", **variant.overrides, "data.target": target, **(decided or {})}
        )

    def check(self) -> None:
        """Refuse what cannot be compared.

        Raises:
            ValueError: says what.
        """
        base, pairs = self.base, self.scale.pairs
        largest = pairs.patch / 5  # or hardly anything is in both pictures
        if not all(0 <= parallax <= largest for parallax in self.scale.parallaxes):
            sizes = ", ".join(f"{parallax:g}" for parallax in self.scale.parallaxes)
            raise ValueError(f"parallaxes must be from 0 to {largest:g} pixels, got {sizes}")
        if self.scale.parallaxes and base.data.crop > pairs.patch:
            raise ValueError(f"data.crop must be at most {pairs.patch}, the size of the pairs, got {base.data.crop}")
        if self.device == "cuda" and not count_gpus(self.device):
            raise ValueError("--device cuda cannot be used: PyTorch finds no GPU")
        for variant in self.variants:
            self.configure(variant)

    def make_pairs(self) -> None:
        """Make and align the pairs that are not there yet.

        Raises:
            DataError: photographs cannot be used, or the folder holds pairs of other settings.
        """
        make_pairs(self.settings, self.variants, self.data, self.workers)

    def jobs(self) -> list[Job]:
        """All runs, seed after seed; the pairs must be there.

        Raises:
            ValueError: the folder of one holds another.
        """
        jobs = list(self._jobs())
        for job in jobs:
            path = job.folder / SETTINGS_FILE
            if path.exists() and (keys := differing_keys(json.loads(path.read_text()), job.settings)):
                raise ValueError(
                    f"{job.folder} holds a run of other settings, {', '.join(keys)} differ: --out takes another folder"
                )
        return jobs

    def _jobs(self) -> Iterator[Job]:
        for seed in range(self.scale.seeds):
            for setting in self.settings:
                made = folder_of(self.data, setting.name)
                description = setting.describe(made)
                for variant in self.variants:
                    if setting.offers(variant.target):
                        yield self._job(variant, setting.name, seed, description | {"target": variant.target})

    def _job(self, variant: Variant, setting: str, seed: int, description: dict[str, Any]) -> Job:
        name = variant.name.replace(",", "").replace(" ", "-")
        decided = {
            "seed": seed,
            "out": str(self.out / f"{name}-{setting}-seed{seed}"),
            "resume": "auto",
            "device": self.device,
            "data.train": [f"sdd:{folder_of(self.data, setting, variant.target, variant.trusted)}"],
            "data.validation": [],
            "data.decode": False,  # they have just been made
        }
        config = self.configure(variant, decided)
        made = folder_of(self.data, setting)
        return Job(variant, setting, seed, config, description, made, self.scale.test_pairs)
