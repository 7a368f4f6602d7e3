"""Files of NumPy as they come: .npy and .npz, whole, damaged, or something else under their name."""

import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np

_BEGINNINGS = (b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY")
"""How an .npz, an empty one, and an .npy begin."""
_ERRORS = (
    OSError, EOFError, ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError, SyntaxError,
    tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What numpy, zipfile and zlib raise for bytes changed at random."""


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The plain arrays of an .npz by their names, or the one of an .npy under "".

    Raises ValueError, with the reason but without the path, for whatever else the file holds.
    """
    try:
        with open(path, "rb") as file:  # numpy leaves one that it opened open where it is damaged
            if not file.read(6).startswith(_BEGINNINGS):
                raise ValueError("it is no .npy and no .npz, whatever its name")
            file.seek(0)
            found = np.load(file, allow_pickle=False)
            arrays = {"": found} if isinstance(found, np.ndarray) else {name: found[name] for name in found.files}
    except _ERRORS as error:
        text = " ".join(str(error).split()) or type(error).__name__
        if "pickle" in text:  # numpy advises to load them all the same, and they can run any program
            text = "it holds Python objects, which are not read; save numbers or texts only"
        raise ValueError(text) from None
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise ValueError(f"{name} in it is no array")
    return arrays
