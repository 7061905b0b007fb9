"""Packages that only some work needs, and the extras of cadcpp that bring them."""

from importlib.util import find_spec

from cadcpp.errors import ToolError


def require(extra: str, what: str, *packages: str) -> None:
    """Raise ToolError, with the command that helps, if one of ``packages`` of ``extra`` is missing for ``what``."""
    missing = next((name for name in packages if find_spec(name) is None), None)
    if missing:
        raise ToolError(f"{what} needs {missing}, which is not installed: pip install 'cadcpp[{extra}]'")
