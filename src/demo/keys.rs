//! Single keys from the terminal, without the Enter key.
//!
//! The terminal is lent, not owned: raw mode is taken only where both ends are terminals, and given back on drop and on a panic,
//! so that nobody is left with a shell that shows nothing. A thread waits for keys, because the terminal cannot be awaited.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::thread::JoinHandle;
use std::time::Duration;

use crossterm::event::{Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::terminal;
use tokio::sync::mpsc;

use super::screen::{self, Color, Style};
use crate::fleet::Fault;

/// Keys that wait to be handled; more are dropped, as a person at a hung terminal would expect.
const KEYS_WAITING_MAX: usize = 64;
/// How long the thread waits before it looks whether it is still wanted.
const LOOK_UP: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Char(char),
    Enter,
    Escape,
    /// Control and C: in raw mode nobody else sends the signal.
    Interrupt,
}

/// Raw mode for as long as it lives.
struct RawMode;

/// The keyboard, for as long as it lives.
pub struct Keys {
    keys: mpsc::Receiver<Key>,
    is_over: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
    /// Given back last.
    _raw: RawMode,
}

// === impl RawMode ===

impl RawMode {
    fn enter() -> std::io::Result<RawMode> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let usual = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                leave();
                usual(panic);
            }));
        });
        terminal::enable_raw_mode()?;
        screen::set_raw(true);
        Ok(RawMode)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        leave();
    }
}

/// Does nothing where raw mode was never entered.
fn leave() {
    // A terminal that has gone away needs nothing back.
    let _ = terminal::disable_raw_mode();
    screen::set_raw(false);
}

// === impl Keys ===

impl Keys {
    /// The keyboard, if there is one: `None` when input or output is a file, a pipe or nothing at all.
    pub fn open() -> Option<Keys> {
        if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
            return None;
        }
        let raw = RawMode::enter().ok()?;
        let (sender, keys) = mpsc::channel(KEYS_WAITING_MAX);
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let reader = std::thread::Builder::new().name("keys".to_owned()).spawn(move || read(&sender, &over)).ok()?;
        Some(Keys { keys, is_over, reader: Some(reader), _raw: raw })
    }

    /// The next key; `None` when the terminal has gone away. May be dropped and called again without losing a key.
    pub async fn next(&mut self) -> Option<Key> {
        self.keys.recv().await
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        if let Some(reader) = self.reader.take() {
            // It looks up every 50 ms; if it has panicked, the hook has spoken.
            let _ = reader.join();
        }
    }
}

fn read(keys: &mpsc::Sender<Key>, is_over: &AtomicBool) {
    while !is_over.load(Ordering::SeqCst) {
        match crossterm::event::poll(LOOK_UP) {
            Ok(false) => {}
            Ok(true) => match crossterm::event::read() {
                Ok(event) => {
                    if let Some(key) = key_of(&event) {
                        // A full queue drops the key.
                        let _ = keys.try_send(key);
                    }
                }
                Err(_) => return,
            },
            Err(_) => return,
        }
    }
}

fn key_of(event: &Event) -> Option<Key> {
    let Event::Key(key) = event else { return None };
    if key.kind != KeyEventKind::Press {
        return None;
    }
    match key.code {
        KeyCode::Char('c' | 'C') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Key::Interrupt),
        KeyCode::Char(_) if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => None,
        KeyCode::Char(c) => Some(Key::Char(c)),
        KeyCode::Enter => Some(Key::Enter),
        KeyCode::Esc => Some(Key::Escape),
        _ => None,
    }
}

/// The fault that a key switches: `1` to `8`, in the order of [`Fault::DEMO`].
pub fn fault_of(key: Key) -> Option<Fault> {
    let Key::Char(c) = key else { return None };
    let place = c.to_digit(10)?.checked_sub(1)?;
    Fault::DEMO.get(place as usize).copied()
}

/// One line that says which key does what; faults that are on stand out.
pub fn legend(on: &[Fault], style: Style) -> String {
    let faults = Fault::DEMO.iter().enumerate().map(|(i, fault)| {
        let text = format!("[{}] {}", i + 1, fault.name());
        if on.contains(fault) { style.paint(Color::Yellow, &format!("{text} (on)")) } else { text }
    });
    faults.chain(["[q] quit".to_owned()]).collect::<Vec<_>>().join("  ")
}

#[cfg(test)]
mod tests {
    use crossterm::event::KeyEvent;

    use super::*;

    #[test]
    fn keys_are_what_they_are() {
        let press = |code, modifiers| key_of(&Event::Key(KeyEvent::new(code, modifiers)));
        assert_eq!(press(KeyCode::Char('3'), KeyModifiers::NONE), Some(Key::Char('3')));
        assert_eq!(press(KeyCode::Char('Q'), KeyModifiers::SHIFT), Some(Key::Char('Q')));
        assert_eq!(press(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Key::Interrupt));
        assert_eq!(press(KeyCode::Char('x'), KeyModifiers::CONTROL), None);
        assert_eq!(press(KeyCode::Esc, KeyModifiers::NONE), Some(Key::Escape));
        assert_eq!(press(KeyCode::F(1), KeyModifiers::NONE), None);
        assert_eq!(key_of(&Event::FocusGained), None);
        let release = KeyEvent::new_with_kind(KeyCode::Char('3'), KeyModifiers::NONE, KeyEventKind::Release);
        assert_eq!(key_of(&Event::Key(release)), None);
    }

    #[test]
    fn digits_switch_the_faults_of_the_demo() {
        assert_eq!(fault_of(Key::Char('1')), Some(Fault::ErrorSpike));
        assert_eq!(fault_of(Key::Char('8')), Some(Fault::HarmfulOutput));
        for key in [Key::Char('0'), Key::Char('9'), Key::Char('x'), Key::Enter] {
            assert_eq!(fault_of(key), None);
        }
        let legend = legend(&[Fault::Silence], Style::PLAIN);
        assert!(
            legend.starts_with("[1] error_spike  [2] timeouts") && legend.contains("[7] silence (on)") && legend.ends_with("[q] quit"),
            "{legend}"
        );
    }

    #[test]
    fn without_a_terminal_there_is_no_keyboard() {
        if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
            assert!(Keys::open().is_none());
        }
    }
}
