//! Tests scheduler configurations as found in files.

use super::super::Steps;
use super::*;

fn read(fields: &str) -> Result<SchedulerConfig> {
    SchedulerConfig::from_json(format!("{{{fields}}}"), "scheduler_config.json")
}

fn message<T>(result: Result<T>) -> String {
    result.err().map_or_else(String::new, |error| error.to_string())
}

#[test]
fn unknown_fields_and_nulls_are_left_alone() -> Result<()> {
    let config = read(
        r#""_class_name": "PNDMScheduler", "_diffusers_version": "0.11.0", "trained_betas": null, "solver_order": 2"#,
    )?;
    assert_eq!(config.kind()?, SchedulerKind::Pndm);
    assert_eq!(config.trained_betas, None);
    assert_eq!(config.num_train_timesteps, 1000);
    for fields in [
        r#""skip_type": "time_uniform""#,
        r#""a": {"b": [NaN]}, "": 1"#,
        r#""use_flow_sigmas": true, "solver_p": {"_class_name": "DDIMScheduler"}"#,
    ] {
        read(&format!(r#""_class_name": "DDIMScheduler", {fields}"#))?.build(20)?;
    }
    Ok(())
}

#[test]
fn every_class_of_diffusers_is_there_or_refused_by_name() -> Result<()> {
    let classes: std::collections::BTreeMap<String, Vec<String>> =
        test_support::golden_json("config_fields.json");
    let schedulers: Vec<&String> = classes.keys().filter(|class| class.ends_with("Scheduler")).collect();
    assert!(schedulers.len() > 40, "{}", schedulers.len());
    for class in schedulers {
        let config = read(&format!(r#""_class_name": "{class}""#))?;
        match config.kind() {
            Ok(_) => drop(config.build(20)?),
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains(class) && error.contains("DDIMScheduler"), "{error}");
                // Another scheduler can run its noise levels, as with diffusers' `from_config`.
                config.with_kind(SchedulerKind::Ddim).build(20)?;
            }
        }
    }
    for (class, kind) in [
        ("DDIMParallelScheduler", SchedulerKind::Ddim),
        ("DDPMParallelScheduler", SchedulerKind::Ddpm),
        ("FlaxPNDMScheduler", SchedulerKind::Pndm),
    ] {
        assert_eq!(read(&format!(r#""_class_name": "{class}""#))?.kind()?, kind);
    }
    Ok(())
}

#[test]
fn what_was_predicted_is_also_read_as_older_files_say_it() -> Result<()> {
    let class = r#""_class_name": "DDPMScheduler""#;
    for (fields, expected) in [
        (r#""predict_epsilon": false"#, PredictionType::Sample),
        (r#""predict_epsilon": true"#, PredictionType::Epsilon),
        (r#""predict_epsilon": false, "prediction_type": "v_prediction""#, PredictionType::Velocity),
    ] {
        assert_eq!(read(&format!("{class}, {fields}"))?.prediction_type, expected);
    }
    Ok(())
}

#[test]
fn an_unknown_class_is_an_error_only_when_it_is_run() -> Result<()> {
    let config = read(r#""_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0"#)?;
    let message = message(config.build(20).map(|_| ()));
    for part in ["scheduler_config.json", "_class_name", "FlowMatchEulerDiscreteScheduler", "DDIMScheduler"] {
        assert!(message.contains(part), "{message}");
    }
    config.with_kind(SchedulerKind::Ddim).build(20)?;
    Ok(())
}

#[test]
fn fields_that_change_the_result_are_errors_where_their_class_is_run() -> Result<()> {
    let class = r#""_class_name": "UniPCMultistepScheduler""#;
    read(&format!(r#"{class}, "use_flow_sigmas": false, "flow_shift": 1.0, "solver_p": null"#))?.build(20)?;
    for (fields, field) in [
        (r#""use_flow_sigmas": true"#, "`use_flow_sigmas` is true"),
        (r#""use_dynamic_shifting": true"#, "`use_dynamic_shifting` is true"),
        (r#""solver_p": {}"#, "`solver_p` is {}"),
    ] {
        let config = read(&format!("{class}, {fields}"))?;
        let message = message(config.build(20).map(|_| ()));
        assert!(message.contains(&format!("scheduler_config.json: {field}")), "{message}");
        config.with_kind(SchedulerKind::Ddim).build(20)?;
    }
    Ok(())
}

#[test]
fn each_class_has_its_own_defaults() -> Result<()> {
    for (class, betas) in [
        ("DDIMScheduler", (0.0001, 0.02, BetaSchedule::Linear)),
        ("HeunDiscreteScheduler", (0.00085, 0.012, BetaSchedule::Linear)),
        ("LCMScheduler", (0.00085, 0.012, BetaSchedule::ScaledLinear)),
    ] {
        assert_eq!(read(&format!(r#""_class_name": "{class}""#))?.betas(), betas);
    }
    Ok(())
}

#[test]
fn a_spacing_that_the_class_does_not_know_is_left_alone() -> Result<()> {
    let lu = read(r#""_class_name": "DPMSolverMultistepScheduler", "use_lu_lambdas": true"#)?;
    assert_eq!(lu.known_sigma_spacing(), SigmaSpacing::Lu);
    for kind in [SchedulerKind::HeunDiscrete, SchedulerKind::UniPcMultistep, SchedulerKind::Ddim] {
        assert_eq!(lu.clone().with_kind(kind).known_sigma_spacing(), SigmaSpacing::Timesteps);
    }
    let karras = read(r#""_class_name": "DDIMScheduler", "use_karras_sigmas": true"#)?;
    assert_eq!(karras.known_sigma_spacing(), SigmaSpacing::Timesteps);
    let euler = karras.with_kind(SchedulerKind::EulerDiscrete);
    assert_eq!(euler.known_sigma_spacing(), SigmaSpacing::Karras);
    // diffusers' class ignores the field, but whoever asks for the spacing gets it, as in k-diffusion.
    let ancestral = euler.with_kind(SchedulerKind::EulerAncestralDiscrete);
    let of_file = read(r#""_class_name": "EulerAncestralDiscreteScheduler", "use_karras_sigmas": true"#)?;
    for config in [ancestral, of_file] {
        assert_eq!(config.known_sigma_spacing(), SigmaSpacing::Timesteps);
        let asked = config.with_sigma_spacing(SigmaSpacing::Karras)?;
        assert_eq!(asked.known_sigma_spacing(), SigmaSpacing::Karras);
    }
    Ok(())
}

#[test]
fn a_class_of_two_kinds_is_told_by_its_algorithm() -> Result<()> {
    let class = r#""_class_name": "DPMSolverMultistepScheduler""#;
    let plain = read(class)?;
    assert_eq!(plain.kind()?, SchedulerKind::DpmSolverMultistep);
    let stochastic = read(&format!(r#"{class}, "algorithm_type": "sde-dpmsolver++""#))?;
    assert_eq!(stochastic.kind()?, SchedulerKind::DpmSolverMultistepSde);
    for kind in SchedulerKind::ALL {
        assert_eq!(plain.clone().with_kind(kind).kind()?, kind);
        assert_eq!(stochastic.clone().with_kind(kind).kind()?, kind);
    }
    Ok(())
}

#[test]
fn what_a_scheduler_cannot_do_names_those_that_can() -> Result<()> {
    let ddim = read(r#""_class_name": "DDIMScheduler""#)?;
    let single = ddim.clone().with_kind(SchedulerKind::DpmSolverSinglestep);
    for (message, parts) in [
        (message(ddim.clone().with_sigma_spacing(SigmaSpacing::Karras)), ["karras", "ddim", "heun"]),
        (
            message(single.clone().with_timestep_spacing(TimestepSpacing::Trailing)),
            ["dpm++-s", "one", "ddim"],
        ),
        (message(single.with_eta(0.5)), ["eta", "dpm++-s", "ddim"]),
        (message(ddim.clone().with_eta(1.5)), ["eta", "1.5", "0 to 1"]),
        (message(ddim.build_for(&Steps::Timesteps(vec![3])).map(|_| ())), ["timesteps", "ddim", "heun"]),
        (message(ddim.build_for(&Steps::Sigmas(vec![1.0, 0.0])).map(|_| ())), ["sigmas", "ddim", "euler"]),
    ] {
        for part in parts {
            assert!(message.contains(part), "{message}");
        }
    }
    Ok(())
}

#[test]
fn impossible_values_name_the_file_and_the_field() {
    for (fields, field) in [
        (r#""num_train_timesteps": 0"#, "num_train_timesteps"),
        (r#""num_train_timesteps": "many""#, "num_train_timesteps"),
        (r#""num_train_timesteps": 3, "trained_betas": [0.1]"#, "trained_betas"),
        (r#""num_train_timesteps": 1, "trained_betas": [-0.1]"#, "trained_betas"),
        (r#""beta_start": 2.0"#, "beta_start"),
        (r#""beta_start": 0.1, "beta_end": 0.01"#, "beta_start"),
        (r#""beta_schedule": "quadratic""#, "beta_schedule"),
        (r#""prediction_type": "flow_prediction""#, "prediction_type"),
        (r#""timestep_spacing": "even""#, "timestep_spacing"),
        (r#""steps_offset": -1"#, "steps_offset"),
        (r#""steps_offset": 1000"#, "steps_offset"),
        (r#""clip_sample_range": 0.0"#, "clip_sample_range"),
        (r#""use_karras_sigmas": true, "use_exponential_sigmas": true"#, "use_exponential_sigmas"),
        (r#""use_karras_sigmas": true, "use_beta_sigmas": true"#, "use_beta_sigmas"),
        (r#""algorithm_type": "rk4""#, "algorithm_type"),
        (r#""solver_type": "euler""#, "solver_type"),
        (r#""solver_order": 0"#, "solver_order"),
        (r#""variance_type": "learned_range""#, "variance_type"),
        (r#""original_inference_steps": 0"#, "original_inference_steps"),
        (r#""timestep_scaling": 0"#, "timestep_scaling"),
        (r#""sigma_min": 3.0, "sigma_max": 2.0"#, "sigma_min"),
        (r#""final_sigmas_type": "one""#, "final_sigmas_type"),
        (r#""timestep_type": "other""#, "timestep_type"),
    ] {
        let message = message(read(&format!(r#""_class_name": "DDIMScheduler", {fields}"#)));
        assert!(message.contains("scheduler_config.json"), "{fields}: {message}");
        assert!(message.contains(&format!("`{field}`")), "{fields}: {message}");
    }
    assert!(message(read("")).contains("_class_name"));
    assert!(message(SchedulerConfig::from_json("[]", "a.json")).contains("a.json"));
}

#[test]
fn the_pipeline_corrects_older_files() -> Result<()> {
    let config = read(r#""_class_name": "DDIMScheduler", "clip_sample": true"#)?.for_latents();
    assert_eq!(config.steps_offset, 1);
    assert_eq!(config.clip_sample, Some(false));
    Ok(())
}
