//! One picture of a network, for scripts.

use serde_json::{Value, json};

use super::refresh::{List, page};
use crate::tool::client::{Client, ClientError};
use crate::tool::shown::{amount, foreign};

/// The picture: an object on one line, or names and their totals in columns.
pub(super) fn picture(client: &mut Client, as_json: bool) -> Result<String, ClientError> {
    let names = all(client, List::Names)?;
    let flows = all(client, List::Flows)?;
    if !as_json {
        return Ok(columns(&names, &flows));
    }
    let info = client.call("info", json!({}))?;
    let questions = optional(client.call("questions", json!({})))?;
    let rules = all(client, List::Rules)?;
    let picture = json!({
        "info": info,
        "names": names,
        "flows": flows,
        "rules": rules,
        "questions": questions.get("questions").cloned().unwrap_or_else(|| json!([])),
    });
    Ok(format!("{picture}\n"))
}

/// Without a policy, what it would say is refused.
fn optional(answer: Result<Value, ClientError>) -> Result<Value, ClientError> {
    match answer {
        Err(ClientError::Refused(_)) => Ok(json!({})),
        answer => answer,
    }
}

/// All rows of a list.
fn all(client: &mut Client, list: List) -> Result<Vec<Value>, ClientError> {
    let mut rows = Vec::new();
    let mut arguments = Some(json!({}));
    let mut pages = 0;
    while let Some(next) = arguments {
        let answer = optional(client.call(list.words().0, next))?;
        pages += 1;
        let (new, next) = page(list, &answer, pages);
        rows.extend(new);
        arguments = next;
    }
    Ok(rows)
}

/// One line for each flow, with its name.
fn columns(names: &[Value], flows: &[Value]) -> String {
    let text = |row: &Value, key: &str| {
        row.get(key).and_then(Value::as_str).map_or_else(|| "-".into(), |text| foreign(text, 253))
    };
    let number = |row: &Value, key: &str| row.get(key).and_then(Value::as_u64).unwrap_or(0);
    let mut table = String::from("NAME REMOTE PROTO VERDICT RULE OUT IN\n");
    let first = |row: &Value| {
        let name = row.get("names").and_then(|names| names.get(0)).and_then(Value::as_str);
        name.map_or_else(|| "-".to_owned(), |name| foreign(name, 253))
    };
    for row in flows {
        table += &format!(
            "{} {} {} {} {} {} {}\n",
            first(row),
            text(row, "remote"),
            text(row, "proto"),
            text(row, "verdict"),
            text(row, "rule"),
            amount(number(row, "bytes_out")),
            amount(number(row, "bytes_in")),
        );
    }
    for row in names.iter().filter(|row| number(row, "flows") == 0) {
        let (name, verdict, rule) = (text(row, "name"), text(row, "verdict"), text(row, "rule"));
        table += &format!("{name} - - {verdict} {rule} 0 0\n");
    }
    table
}
