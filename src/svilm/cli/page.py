"""The command that opens an index as a web page."""

from pathlib import Path
from typing import Annotated

import typer


def serve(
    index: Annotated[Path, typer.Argument(help="Index, made with `svilm index`.", metavar="INDEX")],
    host: Annotated[
        str, typer.Option(help="Address to listen on; one that others can reach needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes any free one.")] = 8642,
    token: Annotated[
        str,
        typer.Option(
            envvar="SVILM_TOKEN", help="What visitors must know, 16 characters or more; default: drawn where needed."
        ),
    ] = "",
    name: Annotated[
        list[str] | None, typer.Option(help="A further host name under which the page is reached; repeatable.")
    ] = None,
    idea: Annotated[
        list[str] | None, typer.Option(help="A query to offer; repeatable.  Default: words of file names.")
    ] = None,
    model: Annotated[str, typer.Option(help="The model that made the index, if it has moved.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps.")] = "auto",
    browse: Annotated[bool, typer.Option("--browse", help="Open the page in a browser.")] = False,
) -> None:
    """Search an index in a web page: results that play, time lines, and where each noun is.

    Only this machine can open the page, unless --host says otherwise.  Ctrl-C stops it.
    """
    try:
        from svilm.app import serve as page
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("fastapi", "starlette", "uvicorn"):
            raise
        raise ValueError(f"the page needs {missing}: pip install -e '.[app]' in svilm's checkout") from None

    page.serve(
        index,
        host=host,
        port=port,
        token=token,
        names=name or (),
        ideas=idea or (),
        model=model or None,
        device=device,
        browse=browse,
    )
