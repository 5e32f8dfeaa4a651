"""
The viewer application: lays out the widgets and handles keys and the mouse.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

from textual import events, on
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Horizontal
from textual.widgets import Footer, Input, Static

from txmetrics_tcp._view.filters import FilterError
from txmetrics_tcp._view.text import shown
from txmetrics_tcp.observe.bindings import KEYS
from txmetrics_tcp.observe.detail import Detail
from txmetrics_tcp.observe.export import EXPORTS, plain_svg, write_new
from txmetrics_tcp.observe.filter_input import FilterField
from txmetrics_tcp.observe.header import Header
from txmetrics_tcp.observe.help import Help
from txmetrics_tcp.observe.row import Group, Row
from txmetrics_tcp.observe.rows import WINDOWS, Rows
from txmetrics_tcp.observe.source_list import SourceList
from txmetrics_tcp.observe.sources import Source, State
from txmetrics_tcp.observe.table import SeriesTable
from txmetrics_tcp.observe.theme import BACKGROUND, BAD, DIM, PANEL, TEXT, THEME

_T = TypeVar("_T")

FRAME = 0.1
"""The minimum number of seconds between two frames.  The effect of a key is drawn at once."""

SHARE = 0.25
"""
The share of time that drawing may take.  Events have priority: slow drawing lowers the frame rate.
"""

MAX_FRAME_DELAY = 2.0
"""The maximum number of seconds between two frames, even if drawing is slow."""

WIDE = 150
"""The minimum width, in cells, for showing the detail pane beside the table instead of below it."""


class ObserveApp(App[int]):
    """
    The viewer of some sources.  It starts them when it is mounted and stops them at the end.

    @ivar rows: the contents of the table.
    @ivar frames: the number of frames drawn.
    @ivar delay: the number of seconds between the last frame and the next.
    """

    TITLE: str | None = "metrics-tcp observe"
    ENABLE_COMMAND_PALETTE: ClassVar[bool] = False
    ALLOW_SELECT: ClassVar[bool] = False
    ESCAPE_TO_MINIMIZE: ClassVar[bool] = False

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            key.keys, key.action, key.hint or key.does, show=bool(key.hint), priority=key.priority
        )
        for key in KEYS
    ]

    CSS: ClassVar[str] = f"""
    Screen {{ background: {BACKGROUND}; color: {TEXT}; layers: base; }}
    /* Here, because the rule for Screen has priority over those in DEFAULT_CSS. */
    Popup {{ background: #00000080; }}
    #body {{ height: 1fr; layout: vertical; }}
    #body.wide {{ layout: horizontal; }}
    #detail {{ display: none; height: 55%; }}
    #body.detail #detail {{ display: block; }}
    #body.wide #detail {{ height: 100%; width: 45%; }}
    #filter-bar {{ height: 1; background: {PANEL}; }}
    #filter-bar Static {{ width: auto; height: 1; color: {DIM}; background: {PANEL}; }}
    #filter-bar Input {{
        width: 1fr; height: 1; border: none; padding: 0; background: {PANEL}; color: {TEXT};
    }}
    #filter-bar #filter-error {{
        color: {BAD}; padding: 0 1; max-width: 80%; text-wrap: nowrap; text-overflow: ellipsis;
    }}
    Toast {{ max-width: 90%; }}
    """

    def __init__(
        self,
        sources: Sequence[Source],
        export_dir: Path = Path(),
        awaited: str = "",
        mounted: Callable[[], object] = lambda: None,
    ) -> None:
        """
        @param awaited: names the sources that may come, for the screen without a source.
        @param mounted: called when the sources have been started.
        """
        super().__init__()
        self._awaited = awaited
        self._mounted_sources = mounted
        self.rows: Rows = Rows(sources)
        self.frames: int = 0
        self.delay: float = FRAME
        self._export_dir = export_dir
        self._drawing_since: float | None = None
        self._watched: Row | None = None
        self.header: Header = Header(self.rows)
        self.table: SeriesTable = SeriesTable(self.rows)
        self.detail: Detail = Detail()
        self._body = Container(self.table, self.detail, id="body")
        self._filter_field = FilterField(
            id="filter",
            placeholder="word kind:histogram label=value /regex/ -not",
            select_on_focus=False,
        )
        self._filter_error = Static("", id="filter-error", markup=False)
        self._filter_bar = Horizontal(
            Static(" / ", markup=False), self._filter_field, self._filter_error, id="filter-bar"
        )
        self._filter_bar.display = False
        self._discarded = False
        self._filter_before = ""

    # Start and end

    def compose(self) -> ComposeResult:
        yield self.header
        yield self._body
        yield self._filter_bar
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        self.register_theme(THEME)
        self.theme = THEME.name
        self.table.focus()
        for source in self.rows.sources:
            source.start()
        self._mounted_sources()
        self._frame()

    def on_unmount(self) -> None:
        for source in self.rows.sources:
            source.stop()

    def show_sources(self, sources: Sequence[Source]) -> None:
        """Replace the sources.  The caller starts those that are new, and stops the others."""
        for source in [one for one in self.rows.sources if one not in sources]:
            self.rows.remove(source)
        for source in [one for one in sources if one not in self.rows.sources]:
            self.rows.add(source)
        self.header.fit_height(self.size.height)

    def on_resize(self, event: events.Resize) -> None:
        self._body.set_class(event.size.width >= WIDE, "wide")
        self.header.fit_height(event.size.height)

    @property
    def _typing(self) -> bool:
        """Whether the user is typing a filter."""
        return self._filter_bar.display

    @property
    def detail_open(self) -> bool:
        return self._body.has_class("detail")

    # Frames

    def _frame(self) -> None:
        """Draw the current state, and measure the time that this takes."""
        if not self.screen_stack:
            # The app is exiting.
            return
        self._drawing_since = time.thread_time()
        for source in self.rows.sources:
            source.tick()
        self.redraw()
        self.call_after_refresh(self._drawn)

    def _drawn(self) -> None:
        assert self._drawing_since is not None
        # Thread time excludes waiting for Textual's refresh.  It includes ingesting events, so the
        # frame rate falls under load.
        cost = time.thread_time() - self._drawing_since
        self.frames += 1
        self.delay = min(MAX_FRAME_DELAY, max(FRAME, cost / SHARE))
        self.set_timer(self.delay, self._frame)

    def redraw(self) -> None:
        """Draw all changes, including those made by keys."""
        if self.rows.update():
            self.table.lines_changed()
        self.table.empty_text = self._empty_text()
        self.table.update()
        self.header.update()
        if isinstance(self.screen, SourceList):
            self.screen.update()
        self._show_detail()

    def _empty_text(self) -> str:
        if self.rows.all:
            return "no series match the filter"
        if not self.rows.sources:
            return f"no sources yet; waiting for {shown(self._awaited)}"
        if any(source.state is State.CONNECTED for source in self.rows.sources):
            return "no series yet"
        for source in self.rows.sources:
            if source.refused and source.server_command:
                return f"no server there; start one: {source.server_command}"
        return "no data yet"

    def _show_detail(self) -> None:
        if not self.detail_open:
            self._watch(None)
            return
        line = self.table.chosen
        self._watch(line if isinstance(line, Row) else None)
        self.detail.show(line, self.rows.window)

    def _watch(self, row: Row | None) -> None:
        """Keep the last events of this row's series only."""
        if row is not self._watched:
            if self._watched is not None:
                self._watched.series.watch(False)
            if row is not None:
                row.series.watch()
            self._watched = row

    def show_message(self, text: str, bad: bool = False) -> None:
        """Show a message of one line for some seconds."""
        self.notify(
            shown(text), severity="error" if bad else "information", timeout=4, markup=False
        )

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """
        Whether a key triggers its action now.

        The key that opens the filter field has priority over widgets, so that keys typed quickly
        after it reach the field.  In the field and in the help, it is an ordinary key.
        """
        if action == "filter":
            return not self._typing and len(self.screen_stack) < 2
        if action == "detail":
            return len(self.screen_stack) < 2
        if action == "close_detail":
            return self.detail_open
        return True

    # Key actions

    def action_move(self, by: int) -> None:
        self.table.move(by)
        self._show_detail()

    def action_page(self, by: int) -> None:
        self.action_move(by * self.table.body_height)

    def action_edge(self, which: int) -> None:
        self.action_move(which * len(self.rows.lines))

    def action_columns(self, by: int) -> None:
        self.table.shift(by)

    def action_detail(self) -> None:
        if self._typing:
            self._close_filter()
            return
        line = self.table.chosen
        if isinstance(line, Group):
            self.rows.fold(line)
        elif line is not None or self.detail_open:
            self._open_detail(not self.detail_open)
            # The details keep their series.
            self.table.move(0)
        self.redraw()

    def action_close_detail(self) -> None:
        self._open_detail(False)
        self.redraw()

    def _open_detail(self, is_open: bool) -> None:
        self._body.set_class(is_open, "detail")
        # The number of visible lines of the table changes.
        self.call_after_refresh(self.table.show_chosen)
        self.refresh_bindings()

    def _reordered(self) -> None:
        """Redraw after grouping or folding, and keep the chosen line on the screen."""
        self.redraw()
        self.table.show_chosen()

    def action_sort(self, by: int) -> None:
        columns = [column.id for column in self.table.all_columns]
        self.rows.sort_by(_neighbour(columns, self.rows.sort, by))
        self.table.reveal(self.rows.sort)
        self._sorted()

    def _sorted(self) -> None:
        """Show the result of sorting from the top; open details keep their series."""
        self.table.to_top(keep=self.detail_open)
        self.redraw()

    def action_reverse(self) -> None:
        self.rows.reverse()
        self._sorted()

    def action_group(self, by: int) -> None:
        self.rows.group_by(_neighbour(self.rows.groupings, self.rows.grouping, by))
        self._reordered()

    def action_fold_all(self) -> None:
        if self.rows.grouping is None:
            self.show_message("No groups. Press g to group the series.")
            return
        self.rows.fold_all()
        self._reordered()

    def action_window(self, by: int) -> None:
        if self.rows.paused:
            self.show_message("Paused. Resume before changing the window.")
            return
        self.rows.set_window(_neighbour(WINDOWS, self.rows.window, by))
        self.redraw()

    def action_pause(self) -> None:
        if self.rows.paused:
            self.rows.resume()
        else:
            for source in self.rows.sources:
                source.tick()
            self.rows.pause()
        self.redraw()

    def action_clear(self) -> None:
        self._watch(None)
        self.rows.clear()
        self.redraw()

    def action_sources(self) -> None:
        self.push_screen(SourceList(self.rows))

    def action_help(self) -> None:
        self.push_screen(Help())

    def action_leave(self) -> None:
        self.exit(0)

    def action_stop(self) -> None:
        self.exit(0)

    # Filters

    def action_filter(self) -> None:
        self._discarded = False
        self._filter_bar.display = True
        field = self._filter_field
        self._filter_before = self.rows.filter_text
        field.value = self.rows.filter_text
        field.cursor_position = len(field.value)
        # `Widget.focus` would take effect later, through a message.
        self.screen.set_focus(field)
        self.refresh_bindings()

    @on(Input.Changed, "#filter")
    def _filter_changed(self, event: Input.Changed) -> None:
        if self._discarded:
            # The filter was discarded while this change was pending.
            return
        problem = self._filter_error
        try:
            self.rows.set_filter(event.value)
        except FilterError as error:
            problem.update(shown(str(error)))
        else:
            problem.update("")
            self.redraw()

    def _close_filter(self) -> None:
        self._filter_bar.display = False
        self.screen.set_focus(self.table)
        self.refresh_bindings()

    def action_step_back(self) -> None:
        if len(self.screen_stack) > 1:
            self.pop_screen()
        elif self._typing:
            self._discarded = True
            self.rows.set_filter(self._filter_before)
            self._close_filter()
        elif self.detail_open:
            self._open_detail(False)
        elif self.rows.filter_text:
            self.rows.set_filter("")
        elif self.rows.grouping is not None:
            self.rows.group_by(None)
            self._reordered()
            return
        self.redraw()

    # Files

    def action_export(self, ending: str) -> None:
        self._write(ending, EXPORTS[ending](self.rows))

    def action_picture(self) -> None:
        self._write("svg", plain_svg(self.export_screenshot(title=self.TITLE)))

    def _write(self, ending: str, content: str) -> None:
        try:
            path = write_new(self._export_dir, ending, content)
        except OSError as error:
            self.show_message(
                f"Cannot write to {self._export_dir.resolve()}: {error.strerror}", bad=True
            )
        else:
            self.show_message(f"Saved to {path.resolve()}")

    # The mouse

    @on(SeriesTable.SortClicked)
    def _sort_clicked(self, message: SeriesTable.SortClicked) -> None:
        self.rows.sort_by(message.column)
        self._sorted()

    @on(SeriesTable.LineClicked)
    def _line_clicked(self, message: SeriesTable.LineClicked) -> None:
        if isinstance(message.line, Group) or message.again:
            self.action_detail()
        else:
            self._show_detail()


def _neighbour(choices: Sequence[_T], chosen: _T, by: int) -> _T:
    """Return the choice C{by} places after the chosen one, wrapping around."""
    at = choices.index(chosen) if chosen in choices else 0
    return choices[(at + by) % len(choices)]
