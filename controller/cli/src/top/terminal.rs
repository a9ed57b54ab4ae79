//! The terminal: taken, drawn on thirty times a second, given back however this ends.

use std::io::{self, Stdout};
use std::time::{Duration, Instant};

use crossterm::event::{Event as Input, EventStream, KeyEventKind};
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use crossterm::{cursor, execute};
use futures::StreamExt as _;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::MissedTickBehavior;

use super::app::App;
use super::draw::draw;
use super::feed::Feed;
use crate::error::Error;

/// Between two frames: thirty a second.
const FRAME: Duration = Duration::from_nanos(1_000_000_000 / 30);

/// The terminal as long as it is ours.
struct Screen(Terminal<CrosstermBackend<Stdout>>);

impl Screen {
    fn take() -> io::Result<Self> {
        // A panic's words are to be read, and on the other screen.
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            report(panic);
        }));
        enable_raw_mode()?;
        let screen = execute!(io::stdout(), EnterAlternateScreen, cursor::Hide)
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        screen.map(Self).inspect_err(|_| give_back())
    }
}

impl Screen {
    /// The next frame is drawn as a whole. Of two new sizes the second may be all that is seen, and
    /// the old one: then ratatui has nothing to draw, and the terminal has cut what it had. (Its own
    /// `clear` asks the terminal for the cursor, and the answer is ours to read.)
    fn forget(&mut self) -> io::Result<()> {
        execute!(io::stdout(), Clear(ClearType::All))?;
        self.0.swap_buffers();
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// As well as it goes: it may be gone.
fn give_back() {
    let _ = execute!(io::stdout(), LeaveAlternateScreen, cursor::Show);
    let _ = disable_raw_mode();
}

/// Until somebody quits, or a signal comes.
pub(super) async fn run(mut feed: Feed, interval: Duration) -> Result<(), Error> {
    let mut signals = [
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    ];
    let mut screen = Screen::take()?;
    let mut inputs = EventStream::new();
    let mut app = App::new(interval);
    let mut frames = tokio::time::interval(FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let [interrupt, terminate, hangup] = &mut signals;
    loop {
        tokio::select! {
            _ = frames.tick() => {
                let now = Instant::now();
                screen.0.draw(|frame| draw(frame, &app, now))?;
            }
            event = feed.next() => app.event(event, Instant::now()),
            input = inputs.next() => match input {
                Some(Ok(Input::Key(key))) if key.kind != KeyEventKind::Release => {
                    if app.key(key) {
                        return Ok(());
                    }
                }
                Some(Ok(Input::Resize(..))) => screen.forget()?,
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            },
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = hangup.recv() => return Ok(()),
        }
    }
}
