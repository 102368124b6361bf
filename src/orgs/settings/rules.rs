//! A setting by its name, as existing clients send it: `{"key": "intents_api.require_simulation", "value": "true"}`. Pure.

use serde_json::Value;

use super::Settings;

/// The settings with one of them changed.
///
/// # Errors
/// What is wrong with the key or the value. A key that is not known is an error: whoever sets it expects it to do something.
pub fn with(mut settings: Settings, key: &str, value: Option<&Value>) -> Result<Settings, String> {
    let setting = match key.strip_prefix("intents_api.").unwrap_or(key) {
        "require_simulation" => &mut settings.require_simulation,
        "guardrail_widening_requires_confirm" => &mut settings.guardrail_widening_requires_confirm,
        _ => {
            return Err(
                "key is not a setting: intents_api.require_simulation and guardrail_widening_requires_confirm are"
                    .to_owned(),
            );
        }
    };
    *setting = match value {
        Some(Value::Bool(on)) => *on,
        Some(Value::String(text)) if text == "true" => true,
        Some(Value::String(text)) if text == "false" => false,
        _ => return Err("value must be \"true\" or \"false\"".to_owned()),
    };
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_setting_is_known_by_its_name_and_is_on_or_off() {
        let off = Settings { require_simulation: false, guardrail_widening_requires_confirm: false };
        for on in [json!("true"), json!(true)] {
            for key in ["intents_api.require_simulation", "require_simulation"] {
                let set = with(off.clone(), key, Some(&on));
                assert_eq!(set, Ok(Settings { require_simulation: true, ..off.clone() }));
            }
            let set = with(off.clone(), "guardrail_widening_requires_confirm", Some(&on)).unwrap();
            assert!(set.guardrail_widening_requires_confirm && !set.require_simulation);
            assert_eq!(with(set, "guardrail_widening_requires_confirm", Some(&json!("false"))), Ok(off.clone()));
        }
        for value in [None, Some(json!("yes")), Some(json!(1)), Some(json!(null)), Some(json!("TRUE"))] {
            assert!(with(off.clone(), "require_simulation", value.as_ref()).is_err(), "{value:?}");
        }
        for key in ["", "simulate", "intents_api.", "Require_simulation"] {
            assert!(with(off.clone(), key, Some(&json!("true"))).is_err(), "{key}");
        }
    }
}
