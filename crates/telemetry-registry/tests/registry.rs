//! The registry is consistent, and the generated files in the repository are up to date.
#![cfg(test)]

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use telemetry_registry::{Layout, Registry, RegistryError, generated};

static LAYOUT: LazyLock<Layout> = LazyLock::new(|| {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../config/telemetry-registry.yaml"
    );
    Layout::read(Path::new(path)).unwrap()
});

#[test]
fn the_generated_files_are_up_to_date() {
    for (path, text) in generated(&LAYOUT, &Registry::load(&LAYOUT).unwrap()) {
        let current = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            current == text,
            "{} is stale: run scripts/telemetry-registry",
            path.display()
        );
    }
}

/// Returns the problems of the registry with `groups` added.
fn problems_with(groups: &str) -> String {
    match Registry::load_with(&LAYOUT, &[("more", groups)]) {
        Err(RegistryError::Contradictory(problems)) => problems.join("\n"),
        Err(other) => other.to_string(),
        Ok(_) => String::new(),
    }
}

fn group(attributes: &str) -> String {
    format!("groups: [{{id: more, type: attribute_group, brief: More., attributes: [{attributes}]}}]")
}

#[test]
fn a_reference_to_a_declared_attribute_is_accepted() {
    for name in ["http.route", "article.slug"] {
        assert_eq!(problems_with(&group(&format!("{{ref: {name}}}"))), "");
    }
}

#[test]
fn a_reference_to_an_undeclared_attribute_is_rejected() {
    assert_eq!(
        problems_with(&group("{ref: http.rout}")),
        "more: http.rout is not declared"
    );
}

#[test]
fn a_reference_to_a_deprecated_attribute_is_rejected() {
    assert_eq!(
        problems_with(&group("{ref: http.status_code}")),
        "more: http.status_code is deprecated"
    );
}

#[test]
fn an_upstream_name_cannot_be_redeclared() {
    let declared = |name: &str| {
        problems_with(&group(&format!(
            "{{id: {name}, type: string, brief: Mine., stability: stable, examples: [x]}}"
        )))
    };
    assert_eq!(
        declared("user.id"),
        "more: user.id is defined upstream and cannot be redeclared"
    );
    assert_eq!(
        declared("http.request.header.accept"),
        "more: http.request.header.accept is defined upstream and cannot be redeclared"
    );
    assert_eq!(declared("user.shoe_size"), "");
    let metric = "groups: [{id: more, type: metric, metric_name: process.cpu.time, brief: Mine., stability: stable, \
                  instrument: counter, unit: s}]";
    assert_eq!(
        problems_with(metric),
        "more is defined upstream and cannot be redeclared"
    );
}

#[test]
fn a_name_is_declared_once() {
    let again = "{id: article.slug, type: string, brief: Again., stability: stable, examples: [x]}";
    assert_eq!(
        problems_with(&group(again)),
        "more: article.slug is declared twice"
    );
}

#[test]
fn an_attribute_needs_a_type_a_brief_and_a_stability_and_a_string_needs_examples() {
    for (attribute, problem) in [
        ("{id: x.y, brief: X., stability: stable}", "more: x.y has no type"),
        (
            "{id: x.y, type: text, brief: X., stability: stable}",
            "more: x.y has the unknown type text",
        ),
        (
            "{id: x.y, type: int, brief: X.}",
            "more: x.y has no stability or no brief",
        ),
        (
            "{id: x.y, type: int, stability: stable}",
            "more: x.y has no stability or no brief",
        ),
        (
            "{id: x.y, type: string, brief: X., stability: stable}",
            "more: x.y is a string without examples",
        ),
    ] {
        assert!(
            problems_with(&group(attribute)).starts_with(problem),
            "{attribute}"
        );
    }
}

#[test]
fn a_reference_keeps_the_type_of_the_declaration() {
    for reference in [
        "{ref: url.path, annotations: {type: int}}",
        "{ref: url.path, note: Because., annotations: {type: int}}",
    ] {
        assert_eq!(
            problems_with(&group(reference)),
            "more: url.path has a type other than string"
        );
    }
    assert_eq!(
        problems_with(&group("{ref: status, annotations: {type: int}}")),
        ""
    );
}

#[test]
fn a_name_has_the_format_of_the_conventions() {
    let declared = |name: &str| {
        problems_with(&group(&format!(
            "{{id: {name}, type: int, brief: Mine., stability: stable}}"
        )))
    };
    assert_eq!(declared("order.item_count"), "");
    for (name, problem) in [
        (
            "error",
            "the name error is a namespace too\nthe name error has no namespace",
        ),
        (
            "article",
            "the name article is a namespace too\nthe name article has no namespace",
        ),
        (
            "celery.task_name.kind",
            "the name celery.task_name is a namespace too",
        ),
        ("order.itemCount", "the name order.itemCount is malformed"),
        ("count", "the name count has no namespace"),
    ] {
        assert_eq!(declared(name), problem);
    }
    let metric = "groups: [{id: more, type: metric, metric_name: orders.sentTo, brief: Mine., stability: stable, \
                  instrument: counter, unit: s}]";
    assert_eq!(problems_with(metric), "the name orders.sentTo is malformed");
}

#[test]
fn an_unknown_field_is_rejected() {
    let problem = problems_with(&group("{ref: http.route, requirement: required}"));
    assert!(problem.contains("requirement"), "{problem}");
}

#[test]
fn an_unknown_upstream_metric_cannot_be_imported() {
    assert_eq!(
        problems_with("imports: {metrics: [http.server.duration.seconds]}"),
        "http.server.duration.seconds: upstream has no such metric, or it is deprecated"
    );
}
