//! `result.json`: schema, round trip, and what reading damaged files says.

mod fixture;

use ioasim_reports::{Document, RESULT_SCHEMA, SCHEMA};
use serde_json::Value;

fn schema() -> Value {
    serde_json::from_str(RESULT_SCHEMA).expect("the schema is JSON")
}

fn errors(instance: &Value) -> Vec<String> {
    let validator = jsonschema::draft202012::new(&schema()).expect("the schema is a schema");
    validator.iter_errors(instance).map(|e| format!("{}: {e}", e.instance_path())).collect()
}

#[test]
fn documents_follow_the_schema() {
    for document in [fixture::document(), fixture::troubled(), fixture::made_up()] {
        let value = serde_json::to_value(&document).unwrap();
        assert_eq!(errors(&value), Vec::<String>::new());
    }
}

#[test]
fn the_schema_rejects_wrong_documents() {
    let good = serde_json::to_value(fixture::document()).unwrap();
    let mut wrong = good.clone();
    wrong["runs"][0]["counters"]["iotlb"]["hit_rate"] = 1.5.into();
    assert_eq!(errors(&wrong).len(), 1);
    let mut wrong = good.clone();
    wrong["runs"][0]["counters"]["dma"].as_object_mut().unwrap().remove("faults");
    assert_eq!(errors(&wrong).len(), 1);
    let mut wrong = good;
    wrong["schema"] = "ioasim.result/2".into();
    assert_eq!(errors(&wrong).len(), 1);
}

/// Compares the keys of a value with those of its schema, recursively; an
/// object without `properties` in the schema is a map with free keys.
fn compare_keys(
    root: &Value,
    schema: &Value,
    value: &Value,
    path: &str,
    optional: &mut Vec<String>,
) {
    let schema = match schema.get("$ref").and_then(Value::as_str) {
        Some(name) => root.pointer(name.trim_start_matches('#')).expect("the reference exists"),
        None => schema,
    };
    match value {
        Value::Array(items) => {
            for item in items {
                compare_keys(root, &schema["items"], item, path, optional);
            }
        }
        Value::Object(map) if schema.get("properties").is_some() && path != "$.runs.config" => {
            let known = schema["properties"].as_object().unwrap();
            let required: Vec<&str> = schema["required"]
                .as_array()
                .unwrap()
                .iter()
                .map(|k| k.as_str().unwrap())
                .collect();
            for key in map.keys() {
                assert!(known.contains_key(key), "{path}.{key} is not in the schema");
                if !required.contains(&key.as_str()) {
                    optional.push(format!("{path}.{key}"));
                }
            }
            for key in &required {
                assert!(map.contains_key(*key), "{path}.{key} is required but not written");
            }
            for (key, child) in map {
                compare_keys(root, &known[key], child, &format!("{path}.{key}"), optional);
            }
            for (key, child) in known {
                assert!(
                    child.get("description").is_some() || child.get("$ref").is_some(),
                    "{path}.{key} has no description"
                );
            }
        }
        _ => {}
    }
}

#[test]
fn the_schema_names_exactly_the_written_keys() {
    let root = schema();
    let mut optional = Vec::new();
    for document in [fixture::troubled(), fixture::made_up()] {
        let value = serde_json::to_value(document).unwrap();
        compare_keys(&root, &root, &value, "$", &mut optional);
    }
    optional.sort();
    optional.dedup();
    assert_eq!(
        optional,
        [
            "$.runs.counters.iotlb.prefetch",
            "$.runs.exposure",
            "$.runs.verify",
            "$.runs.verify.walk_read_mismatches",
            "$.runs.verify.walk_reads",
            "$.trace.made_up",
            "$.version.git"
        ]
    );
}

#[test]
fn json_round_trips_byte_for_byte() {
    let text = fixture::document().to_json().unwrap();
    let again = Document::from_json(text.as_bytes(), "x").unwrap();
    assert_eq!(again.to_json().unwrap(), text);
    assert!(text.ends_with("}\n"));
}

#[test]
fn numbers_come_back_as_they_were_written() {
    let mut document = fixture::document();
    // serde_json's fast reader of floats turned the first into 0.99969215699993.
    for rate in [0.999_692_156_999_930_1, 1.0 / 3.0, 0.1 + 0.2, f64::MIN_POSITIVE] {
        document.runs[0].counters.iotlb.hit_rate = rate;
        let text = document.to_json().unwrap();
        let again = Document::from_json(text.as_bytes(), "x").unwrap();
        assert_eq!(again.runs[0].counters.iotlb.hit_rate, rate);
        assert_eq!(again.to_json().unwrap(), text);
    }
}

#[test]
fn results_that_no_replay_wrote_are_refused_in_one_sentence() {
    let mut empty = fixture::document();
    empty.runs.clear();
    let m = message(&empty.to_json().unwrap());
    assert!(m.starts_with("out/result.json cannot be reported: it holds no run;"), "{m}");
    let mut wrong = fixture::document();
    wrong.runs[2].counters.iotlb.hits += 1;
    let m = message(&wrong.to_json().unwrap());
    assert!(m.contains("in run 3") && m.contains("hits") && m.contains("lookups"), "{m}");
    wrong.runs[2].counters.iotlb.hits = u64::MAX;
    assert!(message(&wrong.to_json().unwrap()).contains("in run 3"));
}

#[test]
fn unknown_keys_are_accepted() {
    let mut value = serde_json::to_value(fixture::document()).unwrap();
    value["runs"][0]["counters"]["dma"]["a_later_key"] = 1.into();
    value["a_later_section"] = Value::Array(Vec::new());
    let document = Document::from_json(value.to_string().as_bytes(), "x").unwrap();
    assert_eq!(document.runs.len(), 5);
}

fn message(text: &str) -> String {
    Document::from_json(text.as_bytes(), "out/result.json").unwrap_err().to_string()
}

#[test]
fn a_truncated_file_is_called_truncated() {
    let text = fixture::document().to_json().unwrap();
    for cut in [0, 1, 40, text.len() / 2, text.len() - 3] {
        let m = message(&text[..cut]);
        assert!(m.starts_with("out/result.json is truncated") && m.contains("line"), "{cut}: {m}");
    }
}

#[test]
fn other_files_get_their_own_messages() {
    let m = message("ts,value\n1,2\n");
    assert!(m.contains("is not JSON"), "{m}");
    for text in ["{}", "[]", "3", "{\"schema\": 3}", "{\"schema\": null}"] {
        let m = message(text);
        assert!(m.contains("no \"schema\" key"), "{text}: {m}");
    }
    let m = message("{\"schema\": \"ioasim.trace/1\"}");
    assert!(m.contains("\"ioasim.trace/1\"") && m.contains(SCHEMA), "{m}");
    let m = message("{\"schema\": \"ioasim.result/2\"}");
    assert!(m.contains("newer") && m.contains("update ioasim"), "{m}");
    let mut value = serde_json::to_value(fixture::document()).unwrap();
    value["runs"][2]["counters"].as_object_mut().unwrap().remove("walk");
    let m = message(&value.to_string());
    assert!(m.contains("missing field `walk`"), "{m}");
}

#[test]
fn messages_are_one_line() {
    for text in ["", "x", "{}", "{\"schema\": \"a\\nb\"}"] {
        let m = message(text);
        assert!(!m.contains('\n') && m.contains("out/result.json"), "{m}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let m = Document::read(std::path::Path::new("/nonexistent/r.json")).unwrap_err().to_string();
    assert!(m.contains("/nonexistent/r.json"), "{m}");
}
