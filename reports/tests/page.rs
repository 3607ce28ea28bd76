//! `index.html` and the files around it.

mod fixture;

use std::collections::HashSet;

use ioasim_reports::{Document, index_html, write_all, write_json};
use ioasim_sim::results::Counters;

const EVIL: &str = "<script>alert(1)</script>\"'&<img src=x onerror=y>";

fn evil() -> Document {
    let mut d = fixture::troubled();
    d.trace.path = format!("traces/{EVIL}");
    d.trace.importer = EVIL.into();
    d.trace.notes = vec![EVIL.into()];
    d.trace.markers[0].text = EVIL.into();
    d.trace.sources[0].path = EVIL.into();
    d.trace.counts.insert(EVIL.into(), 3);
    d.trace.importer_counts.insert(EVIL.into(), 3);
    d.version.git = Some(EVIL.into());
    for run in &mut d.runs {
        run.devices[0].device = EVIL.into();
    }
    d.runs[1].config["name"] = EVIL.into();
    d.runs[1].config["description"] = EVIL.into();
    d.runs[2].config[EVIL] = EVIL.into();
    d.runs[2].provenance.parent_layout = EVIL.into();
    d.runs[2].provenance.invalidations = EVIL.into();
    if let Some(v) = &mut d.runs[3].verify {
        v.first_mismatches[0].detail = EVIL.into();
        v.first_mismatches[0].check = EVIL.into();
    }
    d
}

/// Every tag of the page: name, and whether it closes. Fails on what an HTML
/// parser would have to guess about.
fn tags(html: &str) -> Vec<(String, bool)> {
    let mut out = Vec::new();
    let mut rest = html;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let end = rest.find('>').expect("every tag is closed");
        let tag = &rest[..end];
        let closing = tag.starts_with('/');
        let name: String = tag
            .trim_start_matches('/')
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || *c == '!')
            .collect();
        assert!(!name.is_empty(), "a bare < before {:?}", &rest[..30.min(rest.len())]);
        assert_eq!(tag.matches('"').count() % 2, 0, "odd quotes in <{tag}>");
        rest = &rest[end + 1..];
        // The contents of these are not markup.
        if name == "script" || name == "style" {
            let close = format!("</{name}>");
            let at = rest.find(&close).expect("closed");
            rest = &rest[at + close.len()..];
            out.push((name.clone(), false));
            out.push((name, true));
            continue;
        }
        if !tag.ends_with('/') || closing {
            out.push((name, closing));
        }
    }
    out
}

fn assert_balanced(html: &str) {
    let void = ["meta", "br", "!doctype", "link", "hr"];
    let mut open: Vec<String> = Vec::new();
    for (name, closing) in tags(html) {
        if void.contains(&name.as_str()) {
            continue;
        }
        if closing {
            assert_eq!(open.pop().as_deref(), Some(name.as_str()), "tags nest");
        } else {
            open.push(name);
        }
    }
    assert_eq!(open, Vec::<String>::new());
}

#[test]
fn markup_in_names_is_escaped_everywhere() {
    let html = index_html(&[evil()]).unwrap();
    assert_eq!(html.matches("<script").count(), 1, "only the page's own script");
    assert!(!html.contains("<img"));
    let counts = |needle: &str| html.matches(needle).count();
    assert!(counts("&lt;script&gt;alert") > 20, "names are shown, escaped");
    // Inside SVG text too: the device in a panel's title, the name beside a bar.
    let svgs: Vec<&str> =
        html.split("<svg").skip(2).map(|s| s.split("</svg>").next().unwrap()).collect();
    assert!(svgs.iter().any(|s| s.contains("&lt;script&gt;")), "names are drawn, escaped");
    assert_balanced(&html);
    let allowed = [
        "!doctype",
        "html",
        "head",
        "meta",
        "title",
        "style",
        "script",
        "body",
        "header",
        "main",
        "footer",
        "nav",
        "section",
        "h1",
        "h2",
        "h3",
        "h4",
        "p",
        "em",
        "strong",
        "b",
        "ul",
        "li",
        "dl",
        "dt",
        "dd",
        "div",
        "span",
        "a",
        "br",
        "code",
        "pre",
        "details",
        "summary",
        "figure",
        "figcaption",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "svg",
        "defs",
        "pattern",
        "rect",
        "circle",
        "polyline",
        "polygon",
        "line",
        "text",
    ];
    let found: HashSet<String> = tags(&html).into_iter().map(|(name, _)| name).collect();
    for name in &found {
        assert!(allowed.contains(&name.as_str()), "unexpected element {name}");
    }
}

#[test]
fn the_page_is_self_contained_and_modest() {
    let html = index_html(&[fixture::document()]).unwrap();
    assert!(html.len() < 300_000, "{} bytes", html.len());
    for outside in ["http://", "https://", "src=", "@import", "url(\"", "<link"] {
        let rest = html.replace("http://www.w3.org/2000/svg", "");
        assert!(!rest.contains(outside), "{outside}");
    }
    assert!(html.contains("default-src 'none'"));
    assert_balanced(&html);
}

#[test]
fn figures_take_their_colours_from_the_style_sheet() {
    let html = index_html(&[fixture::document()]).unwrap();
    let body = &html[html.find("<main>").unwrap()..html.find("</main>").unwrap()];
    let colour =
        |s: &str| body.contains(&format!("fill=\"{s}")) || body.contains(&format!("stroke=\"{s}"));
    assert!(!colour("#") && !colour("rgb"), "no fixed colour in a figure");
    // Every class of a drawing is in the style sheet.
    let css = &html[html.find("<style>").unwrap()..html.find("</style>").unwrap()];
    for piece in body.split("class=\"f ").chain(body.split("class=\"l ")).skip(1) {
        let class = piece.split('"').next().unwrap();
        if class.len() < 8 && !class.contains('<') {
            assert!(css.contains(&format!(".{class}")), "class {class} has no style");
        }
    }
}

#[test]
fn all_figures_are_there_twice_with_their_numbers() {
    let html = index_html(&[fixture::document()]).unwrap();
    for id in [
        "hit-rate",
        "miss-causes",
        "walk-reads",
        "vmm-work",
        "hit-rate-time",
        "shadow-time",
        "devices",
    ] {
        let at = html
            .find(&format!("<figure id=\"t1-{id}\""))
            .unwrap_or_else(|| panic!("no figure {id}"));
        let figure = &html[at..at + html[at..].find("</figure>").unwrap()];
        assert_eq!(figure.matches("<svg").count(), 2, "{id}");
        assert!(figure.contains("class=\"finding\""), "{id}");
        assert!(id == "devices" || figure.contains("<details>"), "{id}");
    }
    // 100 intervals, none merged.
    let at = html.find("id=\"t1-hit-rate-time\"").unwrap();
    let figure = &html[at..at + html[at..].find("</figure>").unwrap()];
    assert_eq!(figure.matches("<tr>").count(), 101);
}

#[test]
fn the_summary_is_right_about_the_numbers() {
    let text = index_html(&[fixture::troubled()])
        .unwrap()
        .replace("<span class=\"name\">", "")
        .replace("</span>", "");
    assert!(text.contains("passthrough reads fewest table entries per request"));
    assert!(text.contains("hw-nested reads most"));
    assert!(text.contains(
        "Of the configurations that nest, sw-nested-map and sw-nested-invalidate read fewest"
    ));
    assert!(text.contains("without caching mode the guest sends none"));
    assert!(text.contains("18,310 requests faulted"));
    assert!(text.contains("simulates no time"));
    assert!(text.contains("7 differ"));
    assert!(text.contains("layout “2m” and seed 1"), "what is assumed");
    let calm = index_html(&[fixture::document()]).unwrap();
    assert!(calm.contains("No request faulted in any configuration."));
}

#[test]
fn several_documents_have_a_section_each() {
    let html = index_html(&[fixture::document(), fixture::troubled()]).unwrap();
    assert!(
        html.contains("<section class=\"trace\" id=\"t1\">")
            && html.contains("<section class=\"trace\" id=\"t2\">")
    );
    assert!(html.contains("<h2>All traces</h2>"));
    let mut ids = HashSet::new();
    for piece in html.split(" id=\"").skip(1) {
        let id = piece.split('"').next().unwrap();
        assert!(ids.insert(id), "id {id} twice");
    }
    assert!(html.len() < 600_000, "{} bytes", html.len());
    assert_balanced(&html);
}

/// What stands under a head of "What the numbers rest on".
fn evidence<'a>(html: &'a str, head: &str) -> &'a str {
    let at = html.find(&format!("<h4>{head}</h4>")).expect("it is there");
    html[at..].split("</ul>").next().unwrap()
}

#[test]
fn nothing_made_up_is_called_recorded() {
    let html = index_html(&[fixture::made_up()]).unwrap();
    assert_balanced(&html);
    let recorded = evidence(&html, "Recorded");
    assert!(recorded.contains("<li>Nothing: the whole trace is made up.</li>"), "{recorded}");
    assert_eq!(recorded.matches("<li>").count(), 1);
    let assumed = evidence(&html, "Assumed");
    assert!(assumed.contains("Made up by workload nvme: ") && assumed.contains("device accesses"));
    for wrong in ["recorded accesses", "of recorded time", "recorded times", "The guest ran with"] {
        assert!(!html.contains(wrong), "{wrong}");
    }
    let text = ioasim_reports::render_comparison(&[fixture::made_up()], None);
    assert!(text.lines().any(|l| l.ends_with(" made up")), "{text}");
    // A recording says so as before.
    let html = index_html(&[fixture::document()]).unwrap();
    assert!(html.contains("The same recorded accesses") && html.contains("of recorded time"));
}

#[test]
fn what_was_added_or_inferred_is_not_among_the_recorded() {
    let d = fixture::overlaid();
    let html = index_html(std::slice::from_ref(&d)).unwrap();
    let (recorded, assumed) = (evidence(&html, "Recorded"), evidence(&html, "Assumed"));
    assert!(!recorded.contains("parent"), "{recorded}");
    assert!(
        assumed.contains(
            "Added by workload balloon, in no recording: 12 parent maps and 1 parent unmap."
        ),
        "{assumed}"
    );
    assert!(assumed.contains("is recorded, changed by workload balloon"), "{assumed}");
    assert!(!assumed.contains("not recorded but made up with layout"), "{assumed}");
    // 39 of the maps were inferred.
    let number = |n: u64| {
        let text = n.to_string();
        format!("{},{}", &text[..text.len() - 3], &text[text.len() - 3..])
    };
    let maps = d.trace.counts["map"];
    assert!(recorded.contains(&format!("{} maps", number(maps - 39))), "{recorded}");
    assert!(!recorded.contains(&format!("{} maps", number(maps))), "{recorded}");
    assert!(assumed.contains("in no recording: 39 maps."), "{assumed}");
}

#[test]
fn names_of_markers_are_whole_where_there_is_room() {
    let mut d = fixture::document();
    d.trace.markers[0].text = "work begin mixed".into();
    d.trace.markers[1].text = "x".repeat(200);
    let html = index_html(&[d]).unwrap();
    let at = html.find("id=\"t1-hit-rate-time\"").unwrap();
    let figure = &html[at..at + html[at..].find("</figure>").unwrap()];
    let (wide, narrow) = figure.split_once("class=\"narrow\"").unwrap();
    for svg in [wide, narrow] {
        assert!(svg.contains("work begin mixed"));
        assert!(svg.contains("xx\u{2026}") && !svg.contains(&"x".repeat(100)), "cut");
    }
}

#[test]
fn odd_documents_make_a_page() {
    let none = Document { runs: Vec::new(), ..fixture::document() };
    let mut no_dma = fixture::document();
    for run in &mut no_dma.runs {
        run.counters = Counters::default();
        run.devices.clear();
        run.series = Default::default();
    }
    let mut one = fixture::document();
    one.runs.truncate(1);
    let mut ragged = fixture::document();
    ragged.runs[0].series.hits.truncate(3);
    ragged.runs[1].series.interval_ns = 7;
    ragged.runs[2].series.requests.clear();
    ragged.runs[3].config = serde_json::Value::Null;
    let mut huge = fixture::document();
    huge.runs[0].counters.dma.requests = u64::MAX;
    huge.runs[0].counters.guest.traps = u64::MAX;
    huge.runs[1].series.shadow_changes[3] = u64::MAX;
    huge.runs[1].series.shadow_changes[4] = u64::MAX;
    huge.runs[1].series.interval_ns = u64::MAX;
    huge.runs[0].counters.iotlb.hit_rate = f64::NAN;
    for (what, d) in [
        ("no runs", none),
        ("no DMA", no_dma),
        ("one run", one),
        ("ragged", ragged),
        ("huge", huge),
    ] {
        let html = index_html(&[d]).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_balanced(&html);
        let main = &html[html.find("<main>").unwrap()..html.find("</main>").unwrap()];
        assert!(!main.contains("NaN") && !main.contains(">inf"), "{what}");
    }
}

#[test]
fn a_sweep_of_many_runs_stays_modest() {
    let mut d = fixture::document();
    let base = d.runs.clone();
    for i in 0..35usize {
        let mut run = base[i % 5].clone();
        run.config["name"] =
            format!("iotlb-{}-entries-with-a-rather-long-name", 16 << (i / 5)).into();
        for (k, hits) in run.series.hits.iter_mut().enumerate() {
            *hits -= (*hits * (i as u64 + k as u64 % 3)) / 400;
        }
        d.runs.push(run);
    }
    let html = index_html(&[d]).unwrap();
    assert!(html.len() < 600_000, "{} bytes", html.len());
    assert!(html.contains("curves are drawn; the table has all"));
}

#[test]
fn long_series_are_merged_without_losing_counts() {
    let mut d = fixture::document();
    d.runs.truncate(1);
    let s = &mut d.runs[0].series;
    let requests: u64 = 3 * s.requests.iter().sum::<u64>();
    for v in [&mut s.requests, &mut s.hits, &mut s.memory_reads, &mut s.shadow_changes] {
        *v = v.iter().flat_map(|n| [*n, *n, *n]).collect();
    }
    let html = index_html(&[d]).unwrap();
    let at = html.find("id=\"t1-hit-rate-time\"").unwrap();
    let figure = &html[at..at + html[at..].find("</figure>").unwrap()];
    let rows: Vec<&str> = figure.split("<th scope=\"row\">").skip(1).collect();
    assert_eq!(rows.len(), 100, "300 intervals in buckets of 3");
    let cell =
        |row: &str| row.split("<td>").nth(1).unwrap().split('<').next().unwrap().replace(',', "");
    let sum: u64 = rows.iter().map(|r| cell(r).parse::<u64>().unwrap()).sum();
    assert_eq!(sum, requests);
}

#[test]
fn written_files_are_complete_and_reproducible() {
    let dir = tempfile::tempdir().unwrap();
    let target = dir.path().join("new/report");
    let documents = [fixture::document()];
    let written = write_all(&target, &documents).unwrap();
    let names: Vec<_> =
        written.files.iter().map(|f| f.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["index.html", "runs.csv", "result.json"]);
    let bytes = |name: &str| std::fs::read(target.join(name)).unwrap();
    let first: Vec<_> = names.iter().map(|n| bytes(n)).collect();
    let read = Document::read(&target.join("result.json")).unwrap();
    write_all(&target, &[read]).unwrap();
    let second: Vec<_> = names.iter().map(|n| bytes(n)).collect();
    assert!(first == second, "the report of a read-back result is the same");
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 3, "no temporary files are left");
    let two = write_all(&target, &[fixture::document(), fixture::troubled()]).unwrap();
    assert!(two.files[3].ends_with("result-2.json"));
    write_json(&dir.path().join("one.json"), &documents[0]).unwrap();
    assert_eq!(std::fs::read(dir.path().join("one.json")).unwrap(), first[2]);
}

#[test]
fn an_unwritable_folder_is_named_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    // Works for root too, who may write into any folder: a file is none.
    let m = write_all(&file.join("report"), &[fixture::document()]).unwrap_err().to_string();
    assert!(m.contains(file.join("report").to_str().unwrap()) && m.contains("-o DIR"), "{m}");
    assert_eq!(std::fs::read(&file).unwrap(), b"x");
    // A folder in the place of a file: what was there stays, nothing is added.
    let target = dir.path().join("report");
    std::fs::create_dir_all(target.join("result.json")).unwrap();
    let m = write_all(&target, &[fixture::document()]).unwrap_err().to_string();
    assert!(m.contains("result.json"), "{m}");
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 1);
    let m = write_all(&target, &[]).unwrap_err().to_string();
    assert!(m.contains("nothing to report"), "{m}");
}
