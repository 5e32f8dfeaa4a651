"""
The input field for filters.
"""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.widgets import Input


class FilterField(Input):
    """
    An input field that handles keys in the order in which they were pressed.

    Textual's `Input` inserts letters immediately, but runs the actions of other keys a few messages
    later.  When keys are queued, as under load, letters would overtake a backspace.
    """

    # The app's keys, with hints for this field in the last line of the screen.
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "app.detail", "keep", priority=True),
        Binding("escape", "app.step_back", "cancel", priority=True),
    ]

    EDITS: ClassVar[dict[str, str]] = {
        key: binding.action
        for binding in Input.BINDINGS
        if isinstance(binding, Binding)
        for key in binding.key.split(",")
    }
    """The action of each editing key."""

    async def on_key(self, event: events.Key) -> None:
        action = self.EDITS.get(event.key)
        if action is not None:
            event.stop()
            event.prevent_default()
            await self.run_action(action)
