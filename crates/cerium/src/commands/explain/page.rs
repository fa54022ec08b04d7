//! The report as one page for a browser: no other file, nothing from the network, no scripts. `page.html` holds what never changes.

use super::html::{Html, fill};
use super::lanes::{LaneRow, lanes};
use super::layers::Layer;
use super::report::{Figures, Report, Section, show_bits};
use crate::figures::{self, seconds};

/// Height of a row of the network and distance of lanes, in pixels of the page.
const ROW: usize = 44;
const LANE: usize = 18;
/// Parts of the time that are told apart.
const MOST_PARTS: usize = 7;
/// The part of all stages of a bootstrap.
const BOOTSTRAPS: &str = "bootstraps";

/// The whole page.
pub(super) fn write(report: &Report) -> String {
    let mut sections: Vec<Html> = Vec::new();
    if !report.layers.functions.is_empty() {
        sections.push(functions(report));
    }
    sections.push(section(&report.ports(), 2));
    sections.push(section(&report.summary(), 1));
    sections.extend(report.key_plan().iter().map(|plan| section(plan, 1)));
    sections.extend(report.device_sections().iter().map(|of_device| section(of_device, 1)));
    let (network, width) = network(report);
    fill(
        include_str!("page.html"),
        &[
            ("title", Html::text(&report.program.artifact.name)),
            ("subtitle", Html::text(&subtitle(report))),
            ("tiles", tiles(report)),
            ("time", time(report)),
            ("network", network),
            ("graph-width", Html::raw(width.to_string())),
            ("notes", notes(report)),
            ("sections", sections.into_iter().collect()),
            ("version", Html::text(env!("CARGO_PKG_VERSION"))),
        ],
    )
}

fn subtitle(report: &Report) -> String {
    let params = &report.program.params;
    format!(
        "parameters {}, {}, N = 2^{}, log PQ = {:.0}, {} levels; program {:?}",
        params.name(),
        report.security(),
        params.log_n(),
        params.log_pq(),
        params.program_level().0,
        report.program.digest
    )
}

/// The figures that matter most.
fn tiles(report: &Report) -> Html {
    let program = &report.program;
    let keys =
        format!("{} keys, {} as files", program.artifact.keys.len(), figures::bytes(program.key_bytes()));
    let mut tiles =
        vec![("predicted", seconds(report.predicted.total()), format!("a run on {}", report.device_name()))];
    if let Some((stages, run)) = &report.measured {
        let detail = format!("on {}, {} of it in kernels", run.device, seconds(stages.total()));
        tiles.push(("measured", seconds(run.seconds), detail));
    }
    let failure = program.log_failure().map_or("no bootstrap fails".into(), |log| {
        format!("one fails with probability below 2^{:.0}", log.ceil())
    });
    let linear = report.operations("rotate");
    tiles.push(("bootstraps", program.bootstraps().to_string(), failure));
    tiles.push(("rotations", linear.to_string(), format!("{} keys of rotations", report.rotation_keys())));
    tiles.push((
        "memory",
        figures::bytes(report.memory()),
        "of the server: keys, encoded weights, working memory".into(),
    ));
    tiles.push(("keys in memory", figures::bytes(report.costs.key_bytes), keys));
    if let Some((expected, promised)) = report.output_bits() {
        tiles.push((
            "precision",
            format!("{expected:.1} bits"),
            format!("of the output; {promised:.1} bits promised"),
        ));
    }
    let tile = |(name, value, detail): (&str, String, String)| {
        let parts = [
            Html::element("dt", "", &Html::text(name)),
            Html::element("dd", "class=\"value\"", &Html::text(&value)),
            Html::element("dd", "class=\"detail\"", &Html::text(&detail)),
        ];
        Html::element("div", "", &parts.into_iter().collect())
    };
    tiles.into_iter().map(tile).collect()
}

/// A part of the time, with its predicted and measured seconds.
struct Part {
    name: String,
    class: String,
    predicted: f64,
    measured: f64,
}

/// What the time goes into: kinds of layers, and functions.
fn parts(report: &Report) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut add =
        |name: &str, predicted: f64, measured: f64| match parts.iter_mut().find(|part| part.name == name) {
            Some(part) => {
                part.predicted += predicted;
                part.measured += measured;
            }
            None => parts.push(Part { name: name.into(), class: String::new(), predicted, measured }),
        };
    for layer in &report.layers.layers {
        let Some(id) = layer.stage else { continue };
        let figures = report.layer(id);
        let kind = layer.operation.as_deref().and_then(|operation| operation.split(' ').next());
        let measured = figures.measured.map_or(0.0, |seconds| seconds.all - seconds.called);
        add(kind.unwrap_or(&layer.name), figures.predicted.all - figures.predicted.called, measured);
    }
    for &id in &report.layers.functions {
        let figures = report.function(id);
        let name = &report.stage(id).name;
        let kind = if name.starts_with("bootstrap ") { BOOTSTRAPS } else { name };
        add(kind, figures.predicted.all, figures.measured.map_or(0.0, |seconds| seconds.all));
    }
    parts.sort_by(|a, b| b.predicted.total_cmp(&a.predicted));
    if parts.len() > MOST_PARTS {
        let rest = parts.split_off(MOST_PARTS - 1);
        let sum = |of: fn(&Part) -> f64| rest.iter().map(of).sum();
        let name = format!("{} others", rest.len());
        let (predicted, measured) = (sum(|part| part.predicted), sum(|part| part.measured));
        parts.push(Part { name, class: String::new(), predicted, measured });
    }
    // Bootstraps have the colour that they have in the network.
    let mut colours = (0..).map(|index| format!("part{index}"));
    for part in &mut parts {
        part.class = match part.name == BOOTSTRAPS {
            true => "called".into(),
            false => colours.next().expect("there is no end of them"),
        };
    }
    parts
}

/// Bars of all time in parts, with a legend.
fn time(report: &Report) -> Html {
    let parts = parts(report);
    let bar = |name: &str, of: fn(&Part) -> f64| {
        let all: f64 = parts.iter().map(of).sum();
        let piece = |part: &Part| {
            let (class, share) = (&part.class, 100.0 * of(part) / all);
            Html::raw(format!("<i class=\"{class}\" style=\"width:{share:.3}%\"></i>"))
        };
        let pieces: Html = parts.iter().map(piece).collect();
        let label = Html::text(&format!("{name} {}", seconds(all)));
        let bar = Html::element("div", "class=\"stack\" aria-hidden=\"true\"", &pieces);
        Html::from_iter([Html::element("p", "class=\"stack-label\"", &label), bar])
    };
    let mut html = bar("predicted", |part| part.predicted);
    if report.measured.is_some() {
        html = Html::from_iter([html, bar("measured, in kernels", |part| part.measured)]);
    }
    let all: f64 = parts.iter().map(|part| part.predicted).sum();
    let item = |part: &Part| {
        let mut text =
            format!("{} {} ({:.0}%)", part.name, seconds(part.predicted), 100.0 * part.predicted / all);
        if report.measured.is_some() {
            text += &format!(", measured {}", seconds(part.measured));
        }
        let swatch = Html::raw(format!("<i class=\"swatch {}\"></i>", part.class));
        Html::element("li", "", &Html::from_iter([swatch, Html::text(&text)]))
    };
    let legend: Html = parts.iter().map(item).collect();
    Html::from_iter([html, Html::element("ul", "class=\"legend\"", &legend)])
}

/// The layers: a table whose first column is the graph, and the width of that in pixels.
fn network(report: &Report) -> (Html, usize) {
    let layers = &report.layers.layers;
    let operands: Vec<Vec<usize>> = layers.iter().map(|layer| layer.operands.clone()).collect();
    let drawing = lanes(&operands).filter(|_| report.layers.is_graph);
    let widest = drawing.iter().flatten().map(LaneRow::last_lane).max().unwrap_or(0);
    let longest =
        |figures: Figures| figures.predicted.all.max(figures.measured.map_or(0.0, |seconds| seconds.all));
    let scale =
        layers.iter().filter_map(|layer| layer.stage).map(|id| longest(report.layer(id))).fold(0.0, f64::max);
    let rows = layers.iter().enumerate().map(|(index, layer)| {
        let lanes = drawing.as_ref().map(|rows| &rows[index]);
        let graph = lanes.map(|row| edges(row, widest));
        layer_row(report, layer, graph, scale)
    });
    let top = report.program.params.program_level().0;
    let axis =
        Html::raw(format!("<span class=\"axis\"><span>0</span><span>levels</span><span>{top}</span></span>"));
    let head = |class: &str, content: Html| Html::element("th", &format!("scope=\"col\"{class}"), &content);
    let mut heads: Vec<Html> = Vec::new();
    if drawing.is_some() {
        heads.push(head(" class=\"graph\"", Html::element("span", "class=\"unseen\"", &Html::text("graph"))));
    }
    heads.push(head(" class=\"name\"", Html::text("layer")));
    heads.push(head(" class=\"levels\"", axis));
    for name in ["levels", "bootstraps", "rotations", "products", "bits"] {
        heads.push(head(" class=\"wide\"", Html::text(name)));
    }
    heads.push(head(" class=\"time\"", Html::text("time")));
    let head = Html::element("thead", "", &Html::element("tr", "", &heads.into_iter().collect()));
    let body = Html::element("tbody", "", &rows.collect());
    let table = Html::element("table", "class=\"network\"", &Html::from_iter([head, body]));
    let key = |class: &str, text: &str| {
        let swatch = Html::raw(format!("<i class=\"swatch {class}\"></i>"));
        Html::element("li", "", &Html::from_iter([swatch, Html::text(text)]))
    };
    let mut keys = vec![key("own", "predicted, own kernels")];
    if !report.layers.functions.is_empty() {
        keys.push(key("called", "predicted, functions that it calls (bootstraps)"));
    }
    if report.measured.is_some() {
        keys.push(key("measured", "measured"));
    }
    if report.program.bootstraps() > 0 {
        keys.push(Html::raw("<li><b class=\"up\">&#9650;</b>bootstrapped to the highest level</li>"));
    }
    let keys = Html::element("ul", "class=\"legend\"", &keys.into_iter().collect());
    (Html::from_iter([keys, table]), (widest + 1) * LANE)
}

fn layer_row(report: &Report, layer: &Layer, graph: Option<Html>, scale: f64) -> Html {
    let mut cells: Vec<Html> =
        graph.into_iter().map(|svg| Html::element("td", "class=\"graph\"", &svg)).collect();
    let figures = layer.stage.map(|id| report.layer(id));
    let mut detail: Vec<String> = layer.operation.iter().cloned().collect();
    if !layer.shape.is_empty() {
        let extents: Vec<String> = layer.shape.iter().map(ToString::to_string).collect();
        detail.push(extents.join(" × "));
    }
    let name = Html::from_iter([
        Html::element("span", "class=\"title\"", &Html::text(&layer.name)),
        Html::element("small", "class=\"operation\"", &Html::text(&detail.join(", "))),
        Html::element(
            "small",
            "class=\"narrow\"",
            &Html::text(&figures.as_ref().map_or(String::new(), counts)),
        ),
    ]);
    let title = format!("scope=\"row\" class=\"name\" title=\"{}\"", Html::text(&layer.name));
    cells.push(Html::element("th", &title, &name));
    let Some(figures) = figures else {
        cells.push(Html::raw("<td class=\"levels\"></td>"));
        cells.extend((0..5).map(|_| Html::raw("<td class=\"wide\"></td>")));
        cells.push(Html::raw("<td class=\"time\"></td>"));
        return Html::element("tr", "", &cells.into_iter().collect());
    };
    let top = report.program.params.program_level().0;
    cells.push(Html::element("td", "class=\"levels\"", &level_bar(&figures, top)));
    cells.push(number(&format!("{} → {}", figures.level_in, figures.level_out)));
    for count in [figures.bootstraps, figures.rotations, figures.products] {
        cells.push(number(&if count == 0 { "–".into() } else { count.to_string() }));
    }
    cells.push(number(&show_bits(figures.error)));
    cells.push(Html::element("td", "class=\"time\"", &time_bars(&figures, scale)));
    let class = if figures.bootstraps > 0 { "class=\"bootstraps\"" } else { "" };
    Html::element("tr", class, &cells.into_iter().collect())
}

fn number(text: &str) -> Html {
    Html::element("td", "class=\"wide\"", &Html::text(text))
}

/// The figures that narrow screens have no columns for.
fn counts(figures: &Figures) -> String {
    let mut parts = vec![format!("{} → {}", figures.level_in, figures.level_out)];
    for (count, one, many) in [
        (figures.bootstraps, "bootstrap", "bootstraps"),
        (figures.rotations, "rotation", "rotations"),
        (figures.products, "product", "products"),
    ] {
        match count {
            0 => {}
            1 => parts.push(format!("1 {one}")),
            count => parts.push(format!("{count} {many}")),
        }
    }
    parts.push(format!("{} bits", show_bits(figures.error)));
    parts.join(" · ")
}

/// The levels that a layer goes through, on an axis from 0 to `top`.
fn level_bar(figures: &Figures, top: u8) -> Html {
    let width = 100.0 / (f64::from(top) + 1.0);
    let left = f64::from(figures.level_out) * width;
    let span = |from: u8, to: u8| (f64::from(to) - f64::from(from) + 1.0).max(0.0) * width;
    let used = span(figures.level_out, figures.level_in.min(top)).min(100.0 - left);
    let mut bar = format!("<i style=\"left:{left:.2}%;width:{used:.2}%\"></i>");
    if figures.bootstraps > 0 {
        let from = left + used;
        bar += &format!("<u style=\"left:{from:.2}%\"></u><b class=\"up\">&#9650;</b>");
    }
    let label = match figures.bootstraps {
        0 => format!("levels {} to {}", figures.level_in, figures.level_out),
        _ => format!("levels {} to {}, then bootstrapped", figures.level_in, figures.level_out),
    };
    Html::element("div", &format!("class=\"bar\" role=\"img\" aria-label=\"{label}\""), &Html::raw(bar))
}

/// Predicted time, and measured time below it, on a scale that ends at `scale` seconds.
fn time_bars(figures: &Figures, scale: f64) -> Html {
    let share = |seconds: f64| if scale > 0.0 { 100.0 * seconds / scale } else { 0.0 };
    let line = |bars: String, text: String| {
        let bars = Html::element("span", "class=\"bars\"", &Html::raw(bars));
        Html::element("div", "", &Html::from_iter([bars, Html::element("span", "", &Html::text(&text))]))
    };
    let shown = |value: f64| if value > 0.0 { seconds(value) } else { "–".into() };
    let predicted = figures.predicted;
    let bars = format!(
        "<i class=\"own\" style=\"width:{:.2}%\"></i><i class=\"called\" style=\"width:{:.2}%\"></i>",
        share(predicted.all - predicted.called),
        share(predicted.called)
    );
    let mut html = line(bars, shown(predicted.all));
    if let Some(measured) = figures.measured {
        let bars = format!("<i class=\"measured\" style=\"width:{:.2}%\"></i>", share(measured.all));
        let ratio = figures.ratio().map_or(String::new(), |ratio| format!(" ×{ratio:.2}"));
        html = Html::from_iter([html, line(bars, shown(measured.all) + &ratio)]);
    }
    html
}

/// What runs through a row of the graph.
fn edges(row: &LaneRow, widest: usize) -> Html {
    let x = |lane: usize| lane * LANE + LANE / 2;
    // Some way beyond the row on both sides, for rows that are higher: what runs there is in the rows above and below, too.
    let (top, middle, bottom, node) = (-10, ROW as i32 / 2, ROW as i32 + 10, x(row.lane));
    let mut lines = String::new();
    let mut line = |lane: usize, from: i32, to: i32| {
        lines += &format!("<path d=\"M{0} {from}V{to}\"/>", x(lane));
    };
    row.passing.iter().for_each(|&lane| line(lane, top, bottom));
    if row.goes_on {
        line(row.lane, middle, bottom);
    }
    for operand in &row.operands {
        if operand.lane == row.lane {
            line(operand.lane, top, middle);
        } else if !operand.ends {
            line(operand.lane, top, bottom);
        }
    }
    for operand in row.operands.iter().filter(|operand| operand.lane != row.lane) {
        // Down its lane, round the corner, and across to the node.
        let (from, bend) = (x(operand.lane), LANE / 2);
        let turn = if from < node { from + bend } else { from - bend };
        let above = middle - bend as i32;
        lines += &format!("<path d=\"M{from} {top}V{above}Q{from} {middle} {turn} {middle}H{node}\"/>");
    }
    let width = (widest + 1) * LANE;
    Html::raw(format!(
        "<svg width=\"{width}\" height=\"{ROW}\" viewBox=\"0 0 {width} {ROW}\" aria-hidden=\"true\">{lines}\
         <circle cx=\"{node}\" cy=\"{middle}\" r=\"5\"/></svg>"
    ))
}

/// The stages of functions, over all calls.
fn functions(report: &Report) -> Html {
    let is_measured = report.measured.is_some();
    let mut rows = vec![vec!["part", "levels", "rotations", "products", "bits", "predicted"]];
    if is_measured {
        rows[0].extend(["measured", "measured / predicted"]);
    }
    let mut rows: Vec<Vec<String>> =
        rows.into_iter().map(|row| row.into_iter().map(String::from).collect()).collect();
    for &id in &report.layers.functions {
        let figures = report.function(id);
        let mut row = vec![
            report.stage(id).name.clone(),
            format!("{} → {}", figures.level_in, figures.level_out),
            figures.rotations.to_string(),
            figures.products.to_string(),
            show_bits(figures.error),
            seconds(figures.predicted.all),
        ];
        if let Some(measured) = figures.measured {
            row.push(seconds(measured.all));
            row.push(figures.ratio().map_or("–".into(), |ratio| format!("{ratio:.2}")));
        }
        rows.push(row);
    }
    let note = "Functions are compiled once and called by several layers. What they take, over all calls, is part of the time of \
                the layers that call them.";
    section(&Section { title: "In functions", rows, note: note.into() }, 1)
}

fn notes(report: &Report) -> Html {
    let notes = [report.counting_note().to_string(), report.prediction_note()];
    notes.iter().map(|note| Html::element("p", "class=\"note\"", &Html::text(note))).collect()
}

/// A table whose first `left` columns are names.
fn section(section: &Section, left: usize) -> Html {
    // A table of names and figures has no heads.
    let is_list = section.rows.iter().all(|row| row.len() == 2)
        && section.note.is_empty()
        && section.title.contains("memory");
    let row = |(index, cells): (usize, &Vec<String>)| {
        let cell = |(column, cell): (usize, &String)| {
            let (tag, scope) = match (index, column) {
                (0, _) if !is_list => ("th", "scope=\"col\" "),
                (_, 0) => ("th", "scope=\"row\" "),
                _ => ("td", ""),
            };
            let class = if column < left { "name" } else { "number" };
            let indent = if cell.starts_with("  ") { " indented" } else { "" };
            Html::element(tag, &format!("{scope}class=\"{class}{indent}\""), &Html::text(cell.trim()))
        };
        Html::element("tr", "", &cells.iter().enumerate().map(cell).collect())
    };
    let rows: Html = section.rows.iter().enumerate().map(row).collect();
    let table = Html::element("div", "class=\"scroll\"", &Html::element("table", "class=\"plain\"", &rows));
    let note = match section.note.is_empty() {
        true => Html::default(),
        false => Html::element("p", "class=\"note\"", &Html::text(&section.note)),
    };
    let title = Html::element("h2", "", &Html::text(section.title));
    Html::element("section", "", &Html::from_iter([title, table, note]))
}
