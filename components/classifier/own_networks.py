"""A user's own network by its import path: `package.module:name`, where the name is a class or a function.

It is called like a function that is registered with `@architecture`: with the pictures' ImageSpec and the number of classes.
"""

import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

from torch import nn

from components.classifier.errors import UsageError, did_you_mean
from components.classifier.images import ImageSpec


def is_import_path(name: str) -> bool:
    """Say whether an architecture is named by an import path."""
    return ":" in name


def own_builder(name: str) -> Callable[[ImageSpec, int], nn.Module]:
    """Import what a name stands for, from installed packages and from the folder that the process runs in.

    Raises UsageError when there is no such module, or nothing of that name in it, or it cannot be called with an ImageSpec and a number
    of classes.
    """
    path, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last, so that nothing of the folder stands in for what is installed
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise UsageError(f"architecture {name!r} needs the module {error.name!r}, which is not installed; install it") from error
        raise UsageError(
            f"architecture {name!r}: there is no module {error.name!r} installed or in {here}; write package.module:name"
        ) from error
    except (ImportError, SyntaxError, ValueError) as error:  # ValueError: an empty name
        raise UsageError(f"architecture {name!r}: {path} cannot be imported ({error}); correct it") from error
    builder = getattr(module, attribute, None)
    if not callable(builder):
        known = [key for key, value in vars(module).items() if callable(value)]
        hint = did_you_mean(attribute, known, "name a class or a function of it")
        raise UsageError(f"architecture {name!r}: {path} has no class or function {attribute!r}; {hint}")
    try:
        inspect.signature(builder).bind(ImageSpec(8, 8, 1), 2)
    except TypeError as error:
        raise UsageError(
            f"architecture {name!r} cannot be called with the pictures' spec and the number of classes ({error}); "
            f"let it take these two: {attribute}(spec, classes)"
        ) from error
    found: Callable[[ImageSpec, int], nn.Module] = builder
    return found


def own_digest(name: str) -> str:
    """Return the SHA-256 of the file that defines a network, 64 hexadecimal digits; "" where it is not in one."""
    file = inspect.getsourcefile(own_builder(name))
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
