//! What an object is: kinds, schemas, patches, selectors and the shapes on the wire.
//!
//! Pure: no IO, no clock, no async runtime. Server, clients and tools read the same tables from here.

pub mod certificates;
pub mod duration;
pub mod field;
pub mod jsonpath;
pub mod legacy;
pub mod list;
pub mod names;
pub mod object;
pub mod params;
pub mod patch;
pub mod pod_resources;
pub mod quantity;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod status;
pub mod sysctls;
pub mod table;
#[cfg(test)]
mod tests;
pub mod time;
pub mod watch;
pub mod yaml;

pub use object::Value;
pub use resource::Resource;
pub use status::Status;
