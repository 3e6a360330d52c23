//! The hand-overs as a picture for the README, and the raw figures beside it.

use std::fs;
use std::path::PathBuf;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// What one end showed of one contender.
pub struct Row {
    pub name: &'static str,
    pub ours: bool,
    /// From the last sign of life to the next one's first, where one came
    /// after the other.
    pub gaps_ms: Vec<f64>,
    /// How often the old worker lived on beside the new one.
    pub beside: usize,
    /// What stands there where nothing was handed over.
    pub none: Option<String>,
}

impl Row {
    /// Its worker keeps the lock, whatever becomes of flock itself.
    pub fn of_flock() -> Self {
        Self {
            name: "flock",
            ours: false,
            gaps_ms: Vec::new(),
            beside: 0,
            none: Some("worker and lock live on".to_owned()),
        }
    }
}

/// One end.
pub struct Panel {
    pub title: &'static str,
    pub rows: Vec<Row>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

const WIDTH: u32 = 860;
const ROW: u32 = 24;
const TITLE: u32 = 36;
const AXIS: u32 = 44;
const NAMES: u32 = 190;
const MEDIANS: u32 = 80;

/// The axis, in milliseconds.
const FROM: f64 = 1.0;
const TO: f64 = 30_000.0;

// Each stands for a role; `STYLE` says what it is in the dark.
const INK: RGBColor = RGBColor(0x1f, 0x23, 0x28);
const MUTED: RGBColor = RGBColor(0x59, 0x63, 0x6e);
const GRID: RGBColor = RGBColor(0xd1, 0xd9, 0xe0);
const OURS: RGBColor = RGBColor(0x09, 0x69, 0xda);
const THEIRS: RGBColor = RGBColor(0x81, 0x8b, 0x98);
const BAD: RGBColor = RGBColor(0xcf, 0x22, 0x2e);

/// In an `img`, too, a picture knows what its reader prefers.
const STYLE: &str = "<style>
text { font-family: system-ui, sans-serif }
@media (prefers-color-scheme: dark) {
  [fill='#1F2328'] { fill: #f0f6fc } [stroke='#1F2328'] { stroke: #f0f6fc }
  [fill='#59636E'] { fill: #9198a1 } [stroke='#59636E'] { stroke: #9198a1 }
  [fill='#D1D9E0'] { fill: #3d444d } [stroke='#D1D9E0'] { stroke: #3d444d }
  [fill='#0969DA'] { fill: #4493f8 } [stroke='#0969DA'] { stroke: #4493f8 }
  [fill='#818B98'] { fill: #9198a1 } [stroke='#818B98'] { stroke: #9198a1 }
  [fill='#CF222E'] { fill: #f85149 } [stroke='#CF222E'] { stroke: #f85149 }
}
</style>
";

/// Writes both below `target/`.
pub fn write(panels: &[Panel]) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let folder = folder.parent().map_or(folder.clone(), PathBuf::from);
    let (picture, raw) = (folder.join("hand-over.svg"), folder.join("hand-over.json"));
    fs::write(&picture, svg(panels).expect("draw")).expect("write the picture");
    fs::write(&raw, json(panels)).expect("write the figures");
    println!(
        "\npicture: {}\nfigures: {}",
        picture.display(),
        raw.display()
    );
}

fn json(panels: &[Panel]) -> String {
    let row = |row: &Row| {
        serde_json::json!({
            "contender": row.name,
            "gaps_ms": row.gaps_ms,
            "two_workers": row.beside,
            "nothing_handed_over": row.none,
        })
    };
    let panel = |panel: &Panel| {
        let rows: Vec<_> = panel.rows.iter().map(row).collect();
        serde_json::json!({ "end": panel.title, "contenders": rows })
    };
    let panels: Vec<_> = panels.iter().map(panel).collect();
    format!("{:#}\n", serde_json::Value::from(panels))
}

fn svg(panels: &[Panel]) -> Result<String, Box<dyn std::error::Error>> {
    let height = |panel: &Panel| TITLE + ROW * u32::try_from(panel.rows.len()).unwrap_or(0);
    let total = panels.iter().map(height).sum::<u32>() + AXIS;
    let mut text = String::new();
    {
        let mut rest = SVGBackend::with_string(&mut text, (WIDTH, total)).into_drawing_area();
        let mut areas = Vec::new();
        for panel in panels {
            let (area, below) = rest.split_vertically(height(panel));
            areas.push((area, panel));
            rest = below;
        }
        axis(&rest)?;
        for (area, panel) in areas {
            draw(&area, panel)?;
        }
    }
    // The style goes behind the opening tag.
    let (tag, rest) = text.split_once(">\n").ok_or("no picture")?;
    Ok(format!("{tag}>\n{STYLE}{rest}"))
}

fn style(size: u32, color: RGBColor, at: HPos) -> TextStyle<'static> {
    let style = ("sans-serif", size).into_font().color(&color);
    style.pos(Pos::new(at, VPos::Center))
}

fn span() -> i32 {
    i32::try_from(WIDTH - NAMES - MEDIANS).unwrap_or(0)
}

/// Where it is on the axis, which counts in powers of ten.
fn x_of(millis: f64) -> i32 {
    let part = (millis.clamp(FROM, TO) / FROM).log10() / (TO / FROM).log10();
    #[expect(clippy::cast_possible_truncation, reason = "some hundred pixels")]
    let pixels = (part * f64::from(span())).round() as i32;
    i32::try_from(NAMES).unwrap_or(0) + pixels
}

const MARKS: [(f64, &str); 5] = [
    (1.0, "1 ms"),
    (10.0, "10 ms"),
    (100.0, "100 ms"),
    (1_000.0, "1 s"),
    (10_000.0, "10 s"),
];

fn axis(area: &Area<'_>) -> Drawn {
    for (mark, name) in MARKS {
        area.draw(&Text::new(
            name,
            (x_of(mark), 12),
            style(12, MUTED, HPos::Center),
        ))?;
    }
    let what = "from the old worker's last sign of life to the new one's first; each dot is one run, the bar is the median";
    let middle = i32::try_from(WIDTH / 2)?;
    area.draw(&Text::new(
        what,
        (middle, 32),
        style(12, MUTED, HPos::Center),
    ))?;
    Ok(())
}

fn draw(area: &Area<'_>, panel: &Panel) -> Drawn {
    let bottom = i32::try_from(area.dim_in_pixel().1)?;
    for (mark, _) in MARKS {
        let line = [
            (x_of(mark), i32::try_from(TITLE)? - 4),
            (x_of(mark), bottom),
        ];
        area.draw(&PathElement::new(line, GRID))?;
    }
    let title = style(15, INK, HPos::Left);
    area.draw(&Text::new(panel.title, (8, 20), title))?;
    for (index, row) in (0..).zip(&panel.rows) {
        let y = i32::try_from(TITLE + ROW * index + ROW / 2)?;
        draw_row(area, row, y)?;
    }
    Ok(())
}

fn draw_row(area: &Area<'_>, row: &Row, y: i32) -> Drawn {
    let color = if row.ours { OURS } else { THEIRS };
    let ink = if row.ours { INK } else { MUTED };
    let names = i32::try_from(NAMES)?;
    area.draw(&Text::new(
        row.name,
        (names - 14, y),
        style(13, ink, HPos::Right),
    ))?;
    for gap in &row.gaps_ms {
        let dot = Circle::new((x_of(*gap), y), 4, color.mix(0.35).filled());
        area.draw(&dot)?;
    }
    if row.beside > 0 {
        let runs = row.beside + row.gaps_ms.len();
        let said = format!("two workers, side by side, {} of {runs} times", row.beside);
        let band = Rectangle::new(
            [(names, y - 9), (names + span(), y + 9)],
            BAD.mix(0.12).filled(),
        );
        area.draw(&band)?;
        area.draw(&Text::new(
            said,
            (names + 10, y),
            style(13, BAD, HPos::Left),
        ))?;
    }
    if let Some(none) = &row.none {
        let style = style(13, MUTED, HPos::Left);
        area.draw(&Text::new(none.as_str(), (names + 10, y), style))?;
    }
    let mut sorted = row.gaps_ms.clone();
    sorted.sort_by(f64::total_cmp);
    if let Some(median) = sorted.get(sorted.len() / 2) {
        let x = x_of(*median);
        area.draw(&Rectangle::new(
            [(x - 1, y - 9), (x + 2, y + 9)],
            color.filled(),
        ))?;
        let said = if *median < 999.5 {
            format!("{median:.0} ms")
        } else {
            format!("{:.1} s", median / 1e3)
        };
        let right = i32::try_from(WIDTH)? - 10;
        area.draw(&Text::new(said, (right, y), style(13, ink, HPos::Right)))?;
    }
    Ok(())
}
