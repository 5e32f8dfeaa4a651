"""
The field in which a filter is typed.
"""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.widgets import Input


class FilterField(Input):
    """
    A field in which keys do what they do in the order in which they came.

    Textual's own puts letters in where it gets them, but looks what else a key does only when no
    widget has wanted it, which is a few messages later: of keys that wait, as under load, letters
    would overtake a backspace.
    """

    # What the app's own keys come to here: for the last line of the screen.
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "app.detail", "keep", priority=True),
        Binding("escape", "app.step_back", "forget", priority=True),
    ]

    EDITS: ClassVar[dict[str, str]] = {
        key: binding.action
        for binding in Input.BINDINGS
        if isinstance(binding, Binding)
        for key in binding.key.split(",")
    }
    """The action of each key that edits."""

    async def on_key(self, event: events.Key) -> None:
        action = self.EDITS.get(event.key)
        if action is not None:
            event.stop()
            event.prevent_default()
            await self.run_action(action)
