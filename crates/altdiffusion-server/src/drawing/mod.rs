//! Draws images: what is asked, what happens meanwhile, and the queue of each model.

mod adapters;
mod area;
mod previews;
mod queue;
mod record;
mod request;
mod status;
mod work;

pub(crate) use self::adapters::AdapterFolders;
pub(crate) use self::area::RedrawnArea;
pub(crate) use self::queue::{Drawing, DrawingQueue};
pub(crate) use self::request::{ControlImage, DrawEvent, DrawRequest, Drawn, NamedLora};
pub(crate) use self::status::Running;
