"""Options that had another name: the old one works and is not shown."""

from typing import Any

import click


class Renamed(click.Option):
    """An option that can also be given by its former names, which neither help nor messages mention."""

    def __init__(self, *args: Any, formerly: tuple[str, ...], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._formerly = formerly

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        shown, self.opts = self.opts, [*self.opts, *self._formerly]
        try:
            super().add_to_parser(parser, ctx)
        finally:
            self.opts = shown
