//! Serializes scheduler configurations as `scheduler_config.json`.

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use super::SchedulerConfig;
use super::config::NO_FILE;
use super::fields::{ETA, Fields, sigma_spacing_field};

/// Uses diffusers' names, and `eta` if not 0. Unset fields and the file's name are left out.
impl Serialize for SchedulerConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fields_of(self).map_err(S::Error::custom)?.serialize(serializer)
    }
}

/// Like [`SchedulerConfig::from_json`], but fields that no class has are refused.
impl<'de> Deserialize<'de> for SchedulerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = Fields::new(Map::deserialize(deserializer)?, NO_FILE);
        if let Some(field) = fields.unknown() {
            return Err(D::Error::custom(format!("{NO_FILE}: no scheduler has a field `{field}`")));
        }
        let mut config = Self::from_fields(&fields, NO_FILE).map_err(D::Error::custom)?;
        let eta = fields.get(ETA).map_err(D::Error::custom)?.unwrap_or(config.eta);
        if !(0.0..=1.0).contains(&eta) {
            return Err(D::Error::custom(format!("{NO_FILE}: `{ETA}` is {eta}, expected 0 to 1")));
        }
        config.eta = eta;
        Ok(config)
    }
}

fn fields_of(config: &SchedulerConfig) -> serde_json::Result<Map<String, Value>> {
    // Destructured, so that no field is forgotten.
    let SchedulerConfig {
        class_name,
        num_train_timesteps,
        beta_start,
        beta_end,
        beta_schedule,
        trained_betas,
        rescale_betas_zero_snr,
        prediction_type,
        timestep_spacing,
        steps_offset,
        set_alpha_to_one,
        clip_sample,
        clip_sample_range,
        thresholding,
        dynamic_thresholding_ratio,
        sample_max_value,
        eta,
        variance_type,
        skip_prk_steps,
        sigma_spacing,
        interpolation_type,
        sigma_min,
        sigma_max,
        final_sigmas_type,
        continuous_timesteps,
        solver_order,
        solver_type,
        algorithm_type,
        lower_order_final,
        euler_at_final,
        lambda_min_clipped,
        predict_x0,
        disable_corrector,
        original_inference_steps,
        timestep_scaling,
        refused,
        file: _,
    } = config;
    let mut fields = refused.clone();
    let mut put = |name: &str, value: Value| {
        if !value.is_null() {
            fields.insert(name.to_owned(), value);
        }
    };
    put("_class_name", json!(class_name));
    put("num_train_timesteps", json!(num_train_timesteps));
    put("beta_start", json!(beta_start));
    put("beta_end", json!(beta_end));
    put("beta_schedule", serde_json::to_value(beta_schedule)?);
    put("trained_betas", json!(trained_betas));
    put("rescale_betas_zero_snr", json!(rescale_betas_zero_snr));
    put("prediction_type", serde_json::to_value(prediction_type)?);
    put("timestep_spacing", serde_json::to_value(timestep_spacing)?);
    put("steps_offset", json!(steps_offset));
    put("set_alpha_to_one", json!(set_alpha_to_one));
    put("clip_sample", json!(clip_sample));
    put("clip_sample_range", json!(clip_sample_range));
    put("thresholding", json!(thresholding));
    put("dynamic_thresholding_ratio", json!(dynamic_thresholding_ratio));
    put("sample_max_value", json!(sample_max_value));
    put(ETA, if *eta == 0.0 { Value::Null } else { json!(eta) });
    put("variance_type", serde_json::to_value(variance_type)?);
    put("skip_prk_steps", json!(skip_prk_steps));
    if let Some(field) = sigma_spacing_field(*sigma_spacing) {
        put(field, json!(true));
    }
    put("interpolation_type", serde_json::to_value(interpolation_type)?);
    put("sigma_min", json!(sigma_min));
    put("sigma_max", json!(sigma_max));
    put("final_sigmas_type", serde_json::to_value(final_sigmas_type)?);
    put("timestep_type", json!(if *continuous_timesteps { "continuous" } else { "discrete" }));
    put("solver_order", json!(solver_order));
    put("solver_type", serde_json::to_value(solver_type)?);
    put("algorithm_type", serde_json::to_value(algorithm_type)?);
    put("lower_order_final", json!(lower_order_final));
    put("euler_at_final", json!(euler_at_final));
    // JSON has no infinity; Python writes it as a word.
    put(
        "lambda_min_clipped",
        match *lambda_min_clipped {
            f64::NEG_INFINITY => json!("-inf"),
            number => json!(number),
        },
    );
    put("predict_x0", json!(predict_x0));
    put("disable_corrector", json!(disable_corrector));
    put("original_inference_steps", json!(original_inference_steps));
    put("timestep_scaling", json!(timestep_scaling));
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::super::{SchedulerKind, SigmaSpacing, TimestepSpacing};
    use super::*;
    use test_support::TestResult;

    #[track_caller]
    fn check(config: &SchedulerConfig) -> TestResult {
        let json = serde_json::to_string(config)?;
        let read: SchedulerConfig = serde_json::from_str(&json)?;
        assert_eq!(&read, config, "{json}");
        Ok(())
    }

    #[test]
    fn configurations_survive_json() -> TestResult {
        check(&SchedulerConfig::default())?;
        for kind in SchedulerKind::ALL {
            let mut config = SchedulerConfig::default().with_kind(kind);
            if kind.takes_sigma_spacing(SigmaSpacing::Karras) {
                config = config.with_sigma_spacing(SigmaSpacing::Karras)?;
            }
            if kind.takes_timestep_spacing() {
                config = config.with_timestep_spacing(TimestepSpacing::Trailing)?;
            }
            if kind == SchedulerKind::Ddim {
                config = config.with_eta(0.5)?;
            }
            config.lambda_min_clipped = -5.1;
            config.trained_betas = Some(vec![0.01; config.num_train_timesteps]);
            config.disable_corrector = vec![0, 3];
            check(&config)?;
        }
        Ok(())
    }

    #[test]
    fn what_no_scheduler_can_run_is_kept() -> TestResult {
        let json = r#"{"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": true}"#;
        let config: SchedulerConfig = serde_json::from_str(json)?;
        check(&config)?;
        let message = config.build(4).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(message.contains("use_flow_sigmas"), "{message}");
        Ok(())
    }

    #[test]
    fn unknown_fields_are_refused() {
        let json = r#"{"_class_name": "DDIMScheduler", "number_of_steps": 3}"#;
        let error = serde_json::from_str::<SchedulerConfig>(json).err().map(|error| error.to_string());
        assert!(error.is_some_and(|error| error.contains("`number_of_steps`")));
    }
}
