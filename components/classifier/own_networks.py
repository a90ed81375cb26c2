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

from components.classifier.errors import UsageError, described, did_you_mean
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
    except Exception as error:  # whatever a user's module raises; ValueError: an empty name
        raise UsageError(f"architecture {name!r}: {path} cannot be imported ({described(error)}); correct it") from error
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


def build_own(name: str, spec: ImageSpec, classes: int) -> nn.Module:
    """Call what a name stands for. Raises what `own_builder` raises, and UsageError where the call fails."""
    builder = own_builder(name)
    try:
        return builder(spec, classes)
    except Exception as error:  # whatever a user's constructor raises
        shape = "x".join(map(str, spec.shape))
        raise UsageError(
            f"architecture {name!r} cannot be made for pictures of {shape} and {classes} classes ({described(error)}); correct it, or set "
            "another ingest.image_size"
        ) from error


def own_digest(name: str) -> str:
    """Return the SHA-256 of the file that defines a network, 64 hexadecimal digits; "" where it is not in one."""
    builder = own_builder(name)
    try:
        file = inspect.getsourcefile(builder)
    except TypeError:  # neither a class nor a function, such as what functools.partial gives
        file = inspect.getsourcefile(sys.modules[name.partition(":")[0]])
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
