//! The public API is the one that `public-api.txt` lists, so that no change of it goes unseen.
//!
//! The listing is what rustdoc shows: for each item its declaration, its methods and the traits
//! that are implemented for it. Hidden items are not in it. A difference is no error as such; it
//! asks for a decision, and for an entry in the changelog. To write the listing anew:
//!
//! ```text
//! SLIRP_RENEW_PUBLIC_API=1 cargo test -p slirp-core --test public_api
//! ```

#![cfg(feature = "host")]
#![expect(clippy::disallowed_methods, reason = "runs rustdoc and reads what it has written")]
#![expect(clippy::unwrap_used, reason = "what fails here fails the test, and says so")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const RENEWAL: &str = "SLIRP_RENEW_PUBLIC_API=1 cargo test -p slirp-core --test public_api";

#[test]
fn public_api_is_the_listed_one() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("public-api.txt");
    let found = listing(&documentation());
    if std::env::var_os("SLIRP_RENEW_PUBLIC_API").is_some() {
        fs::write(&file, &found).unwrap();
        return;
    }
    let listed = fs::read_to_string(&file).unwrap();
    assert!(
        found == listed,
        "the public API differs from {} (- listed, + found):\n{}\nif that is meant: {RENEWAL}",
        file.display(),
        difference(&listed, &found),
    );
}

#[test]
fn documentation_names_the_oldest_rust_that_builds_it() {
    let version = format!("Rust {} ", env!("CARGO_PKG_RUST_VERSION"));
    for text in [include_str!("../src/lib.rs"), include_str!("../README.md")] {
        assert!(text.contains(&version), "{version}is not named");
    }
}

/// Folder of the crate's documentation: below `SLIRP_TEST_DOCUMENTATION`, where that is set and
/// fresh already, otherwise written anew.
fn documentation() -> PathBuf {
    if let Some(folder) = std::env::var_os("SLIRP_TEST_DOCUMENTATION") {
        return Path::new(&folder).join("slirp_core");
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let output = Command::new(env!("CARGO"))
        .args(["doc", "--quiet", "--no-deps", "-p", "slirp-core", "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target.join("doc/slirp_core")
}

/// Every item that rustdoc has a page for, in the order of paths.
fn listing(folder: &Path) -> String {
    let index = fs::read_to_string(folder.join("all.html")).unwrap();
    let pages: BTreeSet<_> = all_between(&index, "<li><a href=\"", "</a>")
        .filter_map(|link| link.split_once("\">"))
        .filter(|(page, _)| !page.starts_with('#'))
        .map(|(page, path)| (text_of(path), page.to_owned()))
        .collect();
    assert!(!pages.is_empty(), "rustdoc's list of items has changed its form");
    let mut out = String::new();
    for (path, page) in &pages {
        let html = fs::read_to_string(folder.join(page)).unwrap();
        let declaration = between(&html, "<pre class=\"rust item-decl\"><code>", "</code></pre>");
        assert!(declaration.is_some(), "rustdoc's page of {path} has changed its form");
        writeln!(out, "{path}").unwrap();
        write_indented(&mut out, &text_of(declaration.unwrap()));
        // The declaration of a trait has its methods; whoever implements it is listed there.
        if !page.contains("trait.") {
            let [traits_at, others_at] = ["trait", "synthetic"].map(|kind| {
                html.find(&format!("id=\"{kind}-implementations\"")).unwrap_or(html.len())
            });
            let own = &html[..traits_at.min(others_at)];
            let traits = html.get(traits_at..others_at).unwrap_or("");
            for (section, tag) in [(own, "h4"), (traits, "h3")] {
                let open = format!("<{tag} class=\"code-header\">");
                let headers: BTreeSet<_> =
                    all_between(section, &open, &format!("</{tag}>")).map(text_of).collect();
                headers.iter().for_each(|header| write_indented(&mut out, header));
            }
        }
        out.push('\n');
    }
    out
}

fn write_indented(out: &mut String, text: &str) {
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        writeln!(out, "    {}", line.trim_end()).unwrap();
    }
}

/// The text between the tags of `html`, without what only unfolds a long list.
fn text_of(html: &str) -> String {
    let mut text = String::new();
    let mut rest = html.replace("<div class=\"where\">", "\n").replace("</div>", "\n");
    while let Some((start, end)) = rest.split_once("<summary").and_then(|(start, end)| {
        end.split_once("</summary>").map(|(_, end)| (start.to_owned(), end.to_owned()))
    }) {
        rest = start + &end;
    }
    for piece in rest.split('<') {
        text.push_str(piece.split_once('>').map_or(piece, |(_, after)| after));
    }
    for (entity, character) in
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")]
    {
        text = text.replace(entity, character);
    }
    text.replace('\u{a0}', " ")
}

fn between<'t>(text: &'t str, open: &str, close: &str) -> Option<&'t str> {
    all_between(text, open, close).next()
}

fn all_between<'t>(text: &'t str, open: &str, close: &str) -> impl Iterator<Item = &'t str> {
    text.split(open).skip(1).filter_map(move |rest| rest.split(close).next())
}

/// The lines that only one of the two has, below the item that they belong to.
fn difference(listed: &str, found: &str) -> String {
    let [listed, found] = [listed, found].map(|text| {
        let mut item = "";
        let mut lines = BTreeSet::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if !line.starts_with(' ') {
                item = line;
            }
            lines.insert((item, line));
        }
        lines
    });
    let lines = |sign: char, these: &BTreeSet<(&str, &str)>, others: &BTreeSet<(&str, &str)>| {
        these.difference(others).fold(String::new(), |mut text, (item, line)| {
            writeln!(text, "{sign} {item}: {}", line.trim()).unwrap();
            text
        })
    };
    lines('-', &listed, &found) + &lines('+', &found, &listed)
}
