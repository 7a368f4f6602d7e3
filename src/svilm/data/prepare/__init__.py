"""One short file per public dataset: its official annotation files to a manifest (``common.prepare``).

A dataset is a module of this folder with a function ``listing``; that alone makes `svilm prepare NAME`:

    \"""DiDeMo: {train,val,test}_data.json, five-second chunks with a description each.

    More lines for the help page: which files, in what units, with which traps.
    \"""

    def listing(
        annotations: Annotated[str | Path, "test_data.json or its siblings."],
        *,
        only: Annotated[str | Path | None, "List of the videos to take."] = None,
        split: Annotated[Split, "What the list is used for."] = "train",
    ) -> Listing:

The module's name is the command's, with dashes; its docstring is the help page, the first line of it stands in
the list of datasets.  ``annotations`` is what the command is given, each parameter after the ``*`` an option,
``only_some`` as ``--only-some``, with the text in ``Annotated`` as its help.  Types: ``str | Path`` (a file or
folder), ``str``, ``int``, ``float``, ``bool`` (a flag, False by default), a ``Literal`` (its choices), and each
of them ``| None`` with None by default.  The options of all datasets (--to, --videos, --check, --workers,
--allow-missing, --nouns) belong to the command; ``listing`` must not use their names.

A reader outside this package is given by its dotted name: `svilm prepare my_package.my_dataset FILE --to ...`.
"""

from typing import Literal

Check = Literal["none", "index", "full"]
"""How closely each video is looked at: not at all; its frames listed and the first decoded; all decoded."""
Split = Literal["train", "val", "test"]
"""What a list of clips is used for; all but "train" must be complete."""
Protocol = Literal["msrvtt-1ka-9k", "msrvtt-1ka-7k", "msrvtt-full"]
"""The ways in which MSR-VTT is split."""
