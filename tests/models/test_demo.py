"""The demonstration, small: it gets better, writes what it says, and refuses what it cannot do."""

import html.parser
import json
import subprocess
import sys

import cv2
import pytest

from models.__main__ import main

PICTURES = ("sharp", "defocused", "reblurred", "radius_true", "radius_recovered")


def test_it_recovers_the_blur_and_shows_it(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path), "--steps", "60", "--scale", "0.3"]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["psnr_after_db"] > scores["psnr_before_db"] + 10
    assert scores["radius_correlation"] > 0.9
    printed = capsys.readouterr().out
    assert f"{scores['psnr_after_db']:.2f} dB" in printed
    assert str(tmp_path / "index.html") in printed
    for name in PICTURES:
        picture = cv2.imread(str(tmp_path / f"{name}.png"))
        assert picture is not None, name
        assert picture.std() > 5, name

    page = (tmp_path / "index.html").read_text()
    embedded = []

    class Images(html.parser.HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag == "img":
                embedded.append(dict(attributes)["src"])

    Images().feed(page)
    assert len(embedded) >= len(PICTURES)
    assert "http://" not in page
    assert "https://" not in page


def test_it_repeats(tmp_path):
    scores = []
    for run in ("first", "second"):
        assert main(["demo", "--out", str(tmp_path / run), "--steps", "2", "--scale", "0.2"]) == 0
        result = json.loads((tmp_path / run / "scores.json").read_text())
        scores.append({key: value for key, value in result.items() if key != "seconds"})
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "must be an integer from 1 to"),
        (["--scale", "2"], "must be a number from 0.1 to 1"),
        (["--device", "abacus"], "'abacus' cannot be used"),
        (["--out", "/dev/null/demo"], "cannot write to /dev/null/demo"),
        (["--unknown"], "unrecognized arguments: --unknown"),
    ],
)
def test_bad_input_gets_one_error_before_any_work(arguments, message):
    result = subprocess.run(
        [sys.executable, "-m", "models", "demo", *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_help_does_not_load_torch():
    code = "import sys; from models.__main__ import main\ntry: main(['--help'])\nfinally: print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("False\n")
