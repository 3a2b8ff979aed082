"""The licence of every installed package, as its metadata has it: `make licences`."""

from __future__ import annotations

from importlib.metadata import Distribution, distributions

CLASSIFIER = "License :: "


def licence(package: Distribution) -> str:
    """The SPDX expression, else what the classifiers say, else the free text's first line."""
    metadata = package.metadata
    if "License-Expression" in metadata:
        return metadata["License-Expression"]
    named = [value.split(" :: ")[-1] for value in metadata.get_all("Classifier", []) if value.startswith(CLASSIFIER)]
    text = metadata["License"].strip() if "License" in metadata else ""
    return ", ".join(named) or (text.splitlines()[0] if text else "not stated")


def main() -> None:
    """Print a line per package: name, version, licence."""
    packages = {package.metadata["Name"]: package for package in distributions()}
    width = max(map(len, packages))
    for name in sorted(packages, key=str.lower):
        print(f"{name:<{width}}  {packages[name].version:<16}  {licence(packages[name])}")


if __name__ == "__main__":
    main()
