//! `talea top`: a terminal screen of a running system: servers, targets, rates, fill, epochs, who holds what open.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use talea_client::{Client, Status};
use talea_wire::data::StoreStat;

use super::connect;
use crate::cli::TopArgs;
use crate::failure::Failure;
use crate::svg;

mod screen;

/// What a system says at one instant.
pub(crate) struct Moment {
    pub(crate) at: Instant,
    pub(crate) status: Status,
    /// By the target's place in the map; `None`: it does not answer.
    pub(crate) stats: Vec<Option<StoreStat>>,
}

impl Moment {
    fn of(client: &Client) -> Result<Self, Failure> {
        let status = client.status()?;
        let stats = status.map.targets.iter().map(|target| client.target_stat(target.id).ok()).collect();
        Ok(Self { at: Instant::now(), status, stats })
    }
}

/// Shows the screen until `q`; without a terminal, or with `--once`, one screen as text.
pub(crate) fn top(arguments: &TopArgs) -> Result<u8, Failure> {
    let client = connect(arguments.system.name())?.with_deadline_ms(3_000);
    let name = talea_client::System::find(arguments.system.name())?.file.name;
    let period = Duration::from_millis(arguments.period_ms.clamp(100, 60_000));
    if arguments.once || arguments.picture.is_some() || !std::io::stdout().is_terminal() {
        return once(&client, &name, period, arguments);
    }
    let mut terminal = ratatui::init();
    let result = watch(&mut terminal, &client, &name, period);
    ratatui::restore();
    result
}

fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    client: &Client,
    name: &str,
    period: Duration,
) -> Result<u8, Failure> {
    let failed = || Failure::io("drawing on", "the terminal");
    let mut before: Option<Moment> = None;
    loop {
        let now = Moment::of(client)?;
        terminal.draw(|frame| screen::draw(frame, name, before.as_ref(), &now)).map_err(failed())?;
        before = Some(now);
        let until = Instant::now() + period;
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            if !event::poll(left).map_err(failed())? {
                break;
            }
            if let Event::Key(key) = event::read().map_err(failed())? {
                let interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
                if interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) {
                    return Ok(0);
                }
            }
        }
    }
}

/// One screen, with the rates of one period, as text or as a picture.
fn once(client: &Client, name: &str, period: Duration, arguments: &TopArgs) -> Result<u8, Failure> {
    let before = Moment::of(client)?;
    std::thread::sleep(period);
    let now = Moment::of(client)?;
    let height = screen::height(&now).min(200);
    let mut terminal = match Terminal::new(TestBackend::new(120, height)) {
        Ok(terminal) => terminal,
        Err(never) => match never {},
    };
    if let Err(never) = terminal.draw(|frame| screen::draw(frame, name, Some(&before), &now)) {
        match never {}
    }
    let buffer = terminal.backend().buffer();
    if let Some(path) = &arguments.picture {
        std::fs::write(path, svg::of_buffer(buffer)).map_err(Failure::io("writing", path))?;
        return Ok(0);
    }
    for row in 0..buffer.area.height {
        let line: String = (0..buffer.area.width).map(|column| buffer[(column, row)].symbol()).collect();
        println!("{}", line.trim_end());
    }
    Ok(0)
}
