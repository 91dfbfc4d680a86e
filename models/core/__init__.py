"""Ground floor: files, errors, weights, devices, configurations."""
