//! The report for a terminal: the network as a graph, one line a layer.

use super::lanes::lanes;
use super::layers::{Layer, printable};
use super::report::{Figures, Report, Section, show_bits};
use crate::figures::{self, row, seconds};

/// Characters of a line of prose.
const WIDTH: usize = 120;
/// Characters of the longest name that is printed whole.
const NAME: usize = 36;

/// The whole report; `operations` asks for those of every layer.
pub(super) fn write(report: &Report, operations: bool) -> String {
    let program = &report.program;
    let params = &program.params;
    let mut text = format!("program `{}` ({:?})\n", printable(&program.artifact.name), program.digest);
    text += &format!(
        "parameters {}: {}, N = 2^{}, log PQ = {:.0}, {} levels\n",
        params.name(),
        report.security(),
        params.log_n(),
        params.log_pq(),
        params.program_level().0
    );
    text += &format!("predicted {} a run on {}\n", seconds(report.predicted.total()), report.device_name());
    if let Some((stages, run)) = &report.measured {
        text += &format!(
            "measured {} on {}, {} of it in kernels\n",
            seconds(run.seconds),
            printable(&run.device),
            seconds(stages.total())
        );
    }
    text += &format!("\n{}", table(&report.ports()));
    text += &format!("\n{}", network(report));
    if operations {
        text += &format!("\n{}", figures::columns(&operations_of_layers(report), 2));
    }
    for section in report.device_sections() {
        text += &format!("\n{}", table(&section));
    }
    text += &format!("\n{}", table(&report.summary()));
    report.key_plan().map_or(text.clone(), |plan| format!("{text}\n{}", table(&plan)))
}

fn table(section: &Section) -> String {
    let mut text = figures::table(&section.rows);
    if !section.note.is_empty() {
        text += &paragraph(&section.note);
    }
    text
}

/// Lines of at most [`WIDTH`] characters.
fn paragraph(note: &str) -> String {
    let mut text = String::new();
    let mut length = WIDTH;
    for word in note.split(' ') {
        let count = word.chars().count();
        match length + 1 + count > WIDTH {
            true => {
                text += if text.is_empty() { "  " } else { "\n  " };
                length = 2;
            }
            false => {
                text.push(' ');
                length += 1;
            }
        }
        text += word;
        length += count;
    }
    text + "\n"
}

/// The layers with their edges, and what functions have a part in.
fn network(report: &Report) -> String {
    let layers = &report.layers.layers;
    let operands: Vec<Vec<usize>> = layers.iter().map(|layer| layer.operands.clone()).collect();
    let drawing = lanes(&operands).filter(|_| report.layers.is_graph);
    let edges: Vec<String> = match &drawing {
        Some(rows) => rows.iter().map(|row| row.text().trim_end().to_string()).collect(),
        None => vec![String::new(); layers.len()],
    };
    let margin = edges.iter().map(|edge| edge.chars().count()).max().unwrap_or(0);
    let margin = if margin == 0 { 0 } else { margin + 1 };
    let top = report.program.params.program_level().0;
    let is_measured = report.measured.is_some();

    let heads = Line {
        name: format!("{:margin$}layer", ""),
        operation: "operation".into(),
        bar: format!("0{:>width$}", top, width = usize::from(top)),
        figures: ["levels", "boots", "rotations", "products", "bits", "predicted"].map(String::from).to_vec(),
        measured: ["measured", "ratio"].map(String::from),
    };
    let mut lines = vec![heads];
    for (layer, edge) in layers.iter().zip(&edges) {
        lines.push(line(report, layer, &format!("{edge:margin$}"), top));
    }
    lines.push(total(report, margin));
    let blank = lines.len();
    let functions = &report.layers.functions;
    for &id in functions {
        let figures = report.function(id);
        lines.push(Line {
            name: format!("{:margin$}{}", "", short(&printable(&report.stage(id).name))),
            operation: String::new(),
            bar: bar(&figures, top),
            figures: cells(&figures),
            measured: measured(&figures),
        });
    }
    let table = figures::columns(&lines.iter().map(|line| line.cells(is_measured)).collect::<Vec<_>>(), 3);
    let mut rows = table.split_inclusive('\n');
    let mut text: String = rows.by_ref().take(blank).collect();
    if !functions.is_empty() {
        text += &format!("  {:margin$}of these, in functions over all calls:\n", "");
        text.extend(rows);
    }
    for note in [report.counting_note(), report.prediction_note().as_str()] {
        text += &paragraph(note);
    }
    text
}

/// A line of the drawing.
struct Line {
    name: String,
    operation: String,
    bar: String,
    figures: Vec<String>,
    measured: [String; 2],
}

impl Line {
    fn cells(&self, is_measured: bool) -> Vec<String> {
        let mut cells = vec![self.name.clone(), self.operation.clone(), self.bar.clone()];
        cells.extend(self.figures.iter().cloned());
        cells.extend(self.measured.iter().filter(|_| is_measured).cloned());
        cells
    }
}

fn line(report: &Report, layer: &Layer, edge: &str, top: u8) -> Line {
    let name = format!("{edge}{}", short(&layer.name));
    let operation = layer.operation.clone().unwrap_or_default();
    let Some(id) = layer.stage else {
        return Line { name, operation, bar: String::new(), figures: vec![], measured: Default::default() };
    };
    let figures = report.layer(id);
    Line { name, operation, bar: bar(&figures, top), figures: cells(&figures), measured: measured(&figures) }
}

fn total(report: &Report, margin: usize) -> Line {
    let ids = || report.layers.layers.iter().filter_map(|layer| layer.stage);
    let sum = |of: fn(&Figures) -> u64| ids().map(|id| of(&report.layer(id))).sum::<u64>();
    let predicted = report.predicted.total();
    let measured = report.measured.as_ref().map(|(stages, _)| stages.total());
    Line {
        name: format!("{:margin$}all", ""),
        operation: String::new(),
        bar: String::new(),
        figures: row([
            "",
            &number(sum(|figures| figures.bootstraps)),
            &number(sum(|figures| figures.rotations)),
            &number(sum(|figures| figures.products)),
            "",
            &seconds(predicted),
        ]),
        measured: [
            measured.map_or(String::new(), seconds),
            measured.map_or(String::new(), |measured| ratio(measured / predicted)),
        ],
    }
}

fn cells(figures: &Figures) -> Vec<String> {
    row([
        &format!("{} → {}", figures.level_in, figures.level_out),
        &number(figures.bootstraps),
        &number(figures.rotations),
        &number(figures.products),
        &show_bits(figures.error),
        &if figures.predicted.all > 0.0 { seconds(figures.predicted.all) } else { "-".into() },
    ])
}

fn measured(figures: &Figures) -> [String; 2] {
    let all = figures.measured.map_or(0.0, |measured| measured.all);
    let shown = if all > 0.0 { seconds(all) } else { "-".into() };
    [shown, figures.ratio().map_or(String::new(), ratio)]
}

fn ratio(ratio: f64) -> String {
    format!("{ratio:.2}")
}

fn number(count: u64) -> String {
    if count == 0 { "-".into() } else { count.to_string() }
}

/// The levels that a layer goes through, from 0 to `top`, and where a bootstrap takes it: `...=======~~~~^`.
fn bar(figures: &Figures, top: u8) -> String {
    let end = |level: u8| level == top && figures.bootstraps > 0;
    let mark = |level: u8| match level {
        level if end(level) => '▲',
        level if (figures.level_out..=figures.level_in).contains(&level) => '━',
        level if figures.bootstraps > 0 && level > figures.level_in => '╌',
        _ => '·',
    };
    (0..=top).map(mark).collect()
}

/// A name with its middle left out, if it is long.
fn short(name: &str) -> String {
    let count = name.chars().count();
    if count <= NAME {
        return name.to_string();
    }
    let (head, tail) = (NAME / 3, NAME - NAME / 3 - 1);
    let first: String = name.chars().take(head).collect();
    let last: String = name.chars().skip(count - tail).collect();
    format!("{first}…{last}")
}

/// Each layer's operations, then those of functions.
fn operations_of_layers(report: &Report) -> Vec<Vec<String>> {
    let layers = report.layers.layers.iter().filter_map(|layer| layer.stage);
    let mut ids: Vec<_> = layers.chain(report.layers.functions.iter().copied()).collect();
    ids.dedup();
    let mut rows = vec![row(["layer", "operations"])];
    for id in ids {
        let stage = report.stage(id);
        let operations = stage.operations.iter().map(|(name, count)| format!("{count} {}", printable(name)));
        rows.push(row([&printable(&stage.name), &operations.collect::<Vec<_>>().join(", ")]));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::explain::report::Seconds;

    #[test]
    fn bars_show_levels_and_bootstraps() {
        let seconds = Seconds { all: 0.0, called: 0.0 };
        let figures = |level_in, level_out, bootstraps| Figures {
            level_in,
            level_out,
            bootstraps,
            rotations: 0,
            products: 0,
            error: 0.0,
            predicted: seconds,
            measured: None,
        };
        assert_eq!(bar(&figures(5, 4, 0), 7), "····━━··");
        assert_eq!(bar(&figures(3, 1, 1), 7), "·━━━╌╌╌▲");
        assert_eq!(bar(&figures(7, 5, 2), 7), "·····━━▲");
        // Functions are above the levels of programs.
        assert_eq!(bar(&figures(29, 25, 0), 7), "········");
    }

    #[test]
    fn long_names_lose_their_middle() {
        assert_eq!(short("/conv1/Conv"), "/conv1/Conv");
        let name = "/layer2/layer2.0/downsample/downsample.0/Conv";
        let shown = short(name);
        assert_eq!(shown.chars().count(), NAME);
        assert!(shown.starts_with("/layer2/") && shown.ends_with("downsample.0/Conv"), "{shown}");
    }
}
