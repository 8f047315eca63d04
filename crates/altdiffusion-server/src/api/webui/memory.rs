//! `GET /sdapi/v1/memory`: says how much memory there is.

use axum::Json;
use serde_json::{Value, json};

/// Say how much memory there is, in bytes.
#[utoipa::path(get, path = "/sdapi/v1/memory", responses((status = 200, description = "Memory", body = Object)))]
pub(crate) async fn memory() -> Json<Value> {
    let ram = match (field("/proc/meminfo", "MemTotal:"), field("/proc/meminfo", "MemAvailable:")) {
        (Some(total), Some(free)) => {
            json!({ "total": total, "free": free, "used": field("/proc/self/status", "VmRSS:") })
        }
        _ => json!({ "error": "unavailable" }),
    };
    Json(json!({ "ram": ram, "cuda": { "error": "unavailable" } }))
}

/// A number of bytes in one of Linux's files, which count in KiB.
fn field(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}
