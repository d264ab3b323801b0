//! The terminal of `platform topic top`: what is drawn where, and which key was pressed. What is shown and what keys do is decided in
//! `framegate/topic_top.py`.
//!
//! While it is open the terminal is in raw mode and on its alternate screen; [`TopScreen::close`] gives it back as it was, and so
//! does dropping it. Names that other processes chose are drawn without their control characters (ratatui leaves them out).

use std::{
    io::{self, Stdout, stdout},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use framegate_http::pictures::{Codecs, Coding, PixelFormat, Pixels, decode};
use pyo3::{exceptions::PyOSError, prelude::*};
use ratatui::{
    Frame, Terminal,
    backend::CrosstermBackend,
    crossterm::{
        event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::Line,
    widgets::{Block, Borders, Cell, Clear, Paragraph, Row, Table, TableState, Wrap},
};

use crate::gil::detached;

/// Signals are looked for so often while a key is waited for.
const SLICE: Duration = Duration::from_millis(50);
/// Between two columns.
const SPACING: u16 = 2;
/// A pane below or beside the topics gets this share of the room.
const PANE_PERCENT: u16 = 50;
/// Pixels of a preview; it comes as small as the pane is.
const PREVIEW_PIXELS_MAX: u64 = 1 << 22;
/// Levels of a picture without colours, from dark to bright.
const SHADES: [&str; 5] = [" ", "░", "▒", "▓", "█"];

/// A table: its title, the names of its columns, which of them are on the right (`>`), its rows.
type Pane = (String, Vec<String>, String, Vec<Vec<String>>);
/// What a topic's newest frame looks like: a title, and a JPEG or lines.
type Preview = (String, Option<Vec<u8>>, Vec<String>);

/// How colours are said to this terminal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Colours {
    /// `NO_COLOR` is set.
    None,
    /// The 256 of xterm.
    Indexed,
    /// `COLORTERM` says so.
    True,
}

impl Colours {
    fn of_environment() -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if set("NO_COLOR").is_some() {
            return Self::None;
        }
        match set("COLORTERM").as_deref() {
            Some("truecolor" | "24bit") => Self::True,
            _ => Self::Indexed,
        }
    }

    fn say(self, [red, green, blue]: [u8; 3]) -> Color {
        if self == Self::True {
            return Color::Rgb(red, green, blue);
        }
        // The cube of 6 x 6 x 6 behind the 16 that people choose themselves.
        let step = |value: u8| u16::from(value) * 5 / 255;
        Color::Indexed((16 + 36 * step(red) + 6 * step(green) + step(blue)) as u8)
    }
}

/// What is drawn.
struct Page {
    header: String,
    footer: String,
    topics: Pane,
    selected: usize,
    readers: Option<Pane>,
    preview: Option<(String, Option<Pixels>, Vec<String>)>,
}

/// Where it is drawn.
struct Areas {
    header: Rect,
    topics: Rect,
    readers: Rect,
    preview: Rect,
    footer: Rect,
}

fn areas(whole: Rect, has_readers: bool, has_preview: bool) -> Areas {
    let [header, middle, footer] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(whole);
    let share = |wanted: bool| Constraint::Percentage(if wanted { PANE_PERCENT } else { 0 });
    let [topics, below] =
        Layout::vertical([Constraint::Min(0), share(has_readers || has_preview)]).areas(middle);
    let [readers, preview] = Layout::horizontal([
        Constraint::Percentage(if has_readers { 100 } else { 0 }),
        Constraint::Percentage(match (has_readers, has_preview) {
            (_, false) => 0,
            (true, true) => PANE_PERCENT,
            (false, true) => 100,
        }),
    ])
    .areas(below);
    Areas {
        header,
        topics,
        readers,
        preview,
        footer,
    }
}

/// A terminal that `platform topic top` draws on.
#[pyclass(module = "framegate._http", frozen)]
pub(crate) struct TopScreen(Mutex<Screen>);

struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    table: TableState,
    colours: Colours,
    is_open: bool,
}

impl Screen {
    fn open() -> io::Result<Self> {
        enable_raw_mode()?;
        let opened = execute!(stdout(), EnterAlternateScreen)
            .and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        match opened {
            Ok(terminal) => Ok(Self {
                terminal,
                table: TableState::default(),
                colours: Colours::of_environment(),
                is_open: true,
            }),
            Err(error) => {
                let _ = disable_raw_mode();
                Err(error)
            }
        }
    }

    fn close(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.is_open) {
            return Ok(());
        }
        // One after the other, whatever becomes of it: half given back is better than not at all.
        let shown = self.terminal.show_cursor();
        let left = execute!(stdout(), LeaveAlternateScreen);
        disable_raw_mode()?;
        shown.and(left)
    }

    fn draw(&mut self, page: &Page) -> io::Result<()> {
        let Self {
            terminal,
            table,
            colours,
            ..
        } = self;
        table.select(Some(page.selected));
        terminal.draw(|frame| render(frame, page, table, *colours))?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.close();
    }
}

#[pymethods]
impl TopScreen {
    /// Take the terminal of standard output and input.
    ///
    /// Raises:
    ///     `OSError`: There is none.
    #[new]
    fn new() -> PyResult<Self> {
        let screen = Screen::open().map_err(|error| PyOSError::new_err(error.to_string()))?;
        Ok(Self(Mutex::new(screen)))
    }

    /// Give it back as it was. May be called again.
    fn close(&self) -> PyResult<()> {
        self.with(Screen::close)
    }

    /// Draw everything anew; what did not change is not sent.
    ///
    /// Args:
    ///     header: The first line.
    ///     footer: The last line.
    ///     topics: Title, columns, alignment (`>` is right) and rows of the table.
    ///     selected: The row that is marked.
    ///     readers: The same of a table below it.
    ///     preview: Title, and a JPEG or lines, beside that.
    #[pyo3(signature = (header, footer, topics, selected, readers=None, preview=None))]
    #[expect(clippy::too_many_arguments, reason = "the parts of a page")]
    fn draw(
        &self,
        py: Python<'_>,
        header: String,
        footer: String,
        topics: Pane,
        selected: usize,
        readers: Option<Pane>,
        preview: Option<Preview>,
    ) -> PyResult<()> {
        detached(py, || {
            self.with(|screen| {
                let preview = preview.map(|(title, jpeg, lines)| {
                    let pixels = jpeg.and_then(|jpeg| {
                        let max = PREVIEW_PIXELS_MAX;
                        decode(&mut Codecs::default(), Coding::Jpeg, &jpeg, max).ok()
                    });
                    (title, pixels, lines)
                });
                screen.draw(&Page {
                    header,
                    footer,
                    topics,
                    selected,
                    readers,
                    preview,
                })
            })
        })
    }

    /// Width and height in pixels of a preview: two to a character, one above the other.
    fn preview_size(&self, has_readers: bool) -> PyResult<(u16, u16)> {
        self.with(|screen| {
            let size = screen.terminal.size()?;
            let area = areas(Rect::new(0, 0, size.width, size.height), has_readers, true).preview;
            Ok((
                area.width.saturating_sub(2).max(1),
                (area.height.saturating_sub(2) * 2).max(1),
            ))
        })
    }

    /// The next key, or `resize`; None when none was pressed in time. Keys are characters or one of `up`, `down`, `page up`,
    /// `page down`, `home`, `end`, `enter`, `escape`, `backspace`, `ctrl-c`.
    #[expect(
        clippy::unused_self,
        reason = "keys come while the screen is open alone"
    )]
    fn key(&self, py: Python<'_>, timeout: f64) -> PyResult<Option<String>> {
        let until = Instant::now() + Duration::from_secs_f64(timeout.clamp(0.0, 3600.0));
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let read = detached(py, || -> io::Result<Option<Event>> {
                event::poll(left.min(SLICE))?.then(event::read).transpose()
            });
            py.check_signals()?;
            match read {
                Ok(Some(event)) => {
                    if let Some(name) = name_of(&event) {
                        return Ok(Some(name));
                    }
                }
                Ok(None) if left.is_zero() => return Ok(None),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(PyOSError::new_err(error.to_string())),
            }
        }
    }
}

impl TopScreen {
    fn with<T>(&self, work: impl FnOnce(&mut Screen) -> io::Result<T>) -> PyResult<T> {
        let mut screen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut screen).map_err(|error| PyOSError::new_err(error.to_string()))
    }
}

fn name_of(event: &Event) -> Option<String> {
    let key = match event {
        Event::Resize(..) => return Some("resize".to_owned()),
        Event::Key(key) if key.kind != KeyEventKind::Release => key,
        _ => return None,
    };
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    let name = match key.code {
        KeyCode::Char('c') if is_control => "ctrl-c",
        KeyCode::Char(_) if is_control => return None,
        KeyCode::Char(letter) => return Some(letter.to_string()),
        KeyCode::Up => "up",
        KeyCode::Down => "down",
        KeyCode::PageUp => "page up",
        KeyCode::PageDown => "page down",
        KeyCode::Home => "home",
        KeyCode::End => "end",
        KeyCode::Enter => "enter",
        KeyCode::Esc => "escape",
        KeyCode::Backspace => "backspace",
        _ => return None,
    };
    Some(name.to_owned())
}

fn render(frame: &mut Frame<'_>, page: &Page, state: &mut TableState, colours: Colours) {
    let areas = areas(frame.area(), page.readers.is_some(), page.preview.is_some());
    frame.render_widget(Paragraph::new(page.header.as_str()), areas.header);
    let room = areas.topics.width;
    frame.render_stateful_widget(table(&page.topics, room, colours), areas.topics, state);
    if let Some(readers) = &page.readers {
        let block = Block::default()
            .borders(Borders::ALL)
            .title(readers.0.as_str());
        let room = block.inner(areas.readers).width;
        frame.render_widget(table(readers, room, colours).block(block), areas.readers);
    }
    if let Some((title, pixels, lines)) = &page.preview {
        let block = Block::default().borders(Borders::ALL).title(title.as_str());
        let inner = block.inner(areas.preview);
        frame.render_widget(Clear, areas.preview);
        frame.render_widget(block, areas.preview);
        match pixels {
            Some(pixels) => picture(frame, inner, pixels, colours),
            None => frame.render_widget(
                Paragraph::new(lines.join("\n")).wrap(Wrap { trim: false }),
                inner,
            ),
        }
    }
    frame.render_widget(
        Paragraph::new(page.footer.as_str()).style(Style::new().add_modifier(Modifier::DIM)),
        areas.footer,
    );
}

/// A table as wide as its content; what has no room on the right is left out.
fn table<'a>((_, columns, right, rows): &'a Pane, room: u16, colours: Colours) -> Table<'a> {
    let mut left = usize::from(room);
    let mut widths = Vec::new();
    for (index, name) in columns.iter().enumerate() {
        let widest = rows
            .iter()
            .filter_map(|row| row.get(index))
            .map(|cell| Line::from(cell.as_str()).width());
        let width = widest.fold(name.len(), usize::max).min(left);
        if width == 0 {
            break;
        }
        widths.push(Constraint::Length(width as u16));
        left = left.saturating_sub(width + usize::from(SPACING));
    }
    let line = |index: usize, text: &'a str| {
        let is_right = right.as_bytes().get(index) == Some(&b'>');
        let alignment = if is_right {
            Alignment::Right
        } else {
            Alignment::Left
        };
        Line::from(text).alignment(alignment)
    };
    let cells = |row: &'a Vec<String>| {
        let cells = row.iter().enumerate().map(|(index, text)| {
            // The marks say the same without colours.
            let colour = match text.chars().next_back() {
                Some('!') => Some(Color::Red),
                Some('*') => Some(Color::Yellow),
                _ => None,
            };
            let style = colour
                .filter(|_| colours != Colours::None)
                .map_or_else(Style::new, |colour| Style::new().fg(colour));
            Cell::from(line(index, text)).style(style)
        });
        Row::new(cells.collect::<Vec<_>>())
    };
    let header = columns
        .iter()
        .enumerate()
        .map(|(index, name)| Cell::from(line(index, name)))
        .collect::<Vec<_>>();
    Table::new(rows.iter().map(cells), widths)
        .header(Row::new(header).style(Style::new().add_modifier(Modifier::BOLD)))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
        .column_spacing(SPACING)
}

/// Two pixels to a character: the upper one is its half block, the lower one what is behind.
fn picture(frame: &mut Frame<'_>, area: Rect, pixels: &Pixels, colours: Colours) {
    let (width, height) = pixels.size();
    let at = |x: u32, y: u32| -> [u8; 3] {
        let index = (y * width + x) as usize;
        let data = pixels.data();
        match pixels.format() {
            PixelFormat::Rgb8 => [0, 1, 2].map(|part| data[index * 3 + part]),
            PixelFormat::Rgba8 => [0, 1, 2].map(|part| data[index * 4 + part]),
            PixelFormat::Mono8 => [data[index]; 3],
            _ => [0; 3],
        }
    };
    for row in 0..height.div_ceil(2).min(u32::from(area.height)) {
        for column in 0..width.min(u32::from(area.width)) {
            let upper = at(column, row * 2);
            let lower = at(column, (row * 2 + 1).min(height - 1));
            let place = (area.x + column as u16, area.y + row as u16);
            let Some(cell) = frame.buffer_mut().cell_mut(place) else {
                continue;
            };
            if colours == Colours::None {
                let sum: usize = upper
                    .iter()
                    .chain(&lower)
                    .map(|part| usize::from(*part))
                    .sum();
                cell.set_symbol(SHADES[sum * SHADES.len() / (6 * 255 + 1)]);
            } else {
                cell.set_symbol("▀");
                cell.set_fg(colours.say(upper));
                cell.set_bg(colours.say(lower));
            }
        }
    }
}
