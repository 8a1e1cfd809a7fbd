"""Fail where a package of the base image is missing or replaced, or where a requirement is not met.

The image's own Python runs this at the end of a build: ``check_environment.py KEPT... [--without ABSENT...]``.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def main() -> None:
    """Exit with every problem on a line of its own, or with 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kept", nargs="*", help="modules that the base image must provide")
    parser.add_argument("--without", nargs="*", default=[], help="distributions that this image does without")
    options = parser.parse_args()
    problems = [*lost(options.kept), *unmet(set(options.without))]
    if problems:
        sys.exit("\n".join(problems))


def lost(modules: list[str]) -> Iterator[str]:
    """Name the modules that do not come from outside this virtual environment."""
    for name in modules:
        spec = importlib.util.find_spec(name)
        if spec is None:
            yield f"{name}: the base image has none"
        elif (spec.origin or "").startswith(sys.prefix):
            yield f"{name}: {spec.origin} hides the one of the base image"


def unmet(without: set[str]) -> Iterator[str]:
    """Name the requirements of this virtual environment's packages that neither it nor the base image meets."""
    for distribution in metadata.distributions(path=[sysconfig.get_path("purelib")]):
        for requirement in map(Requirement, distribution.requires or ()):
            if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
                continue
            if canonicalize_name(requirement.name) in without:
                continue
            found = _version(requirement.name)
            if found is None or not requirement.specifier.contains(found, prereleases=True):
                yield f"{distribution.name} requires {requirement}, and there is {found or 'none'}"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
