//! The API's description: that it is whole, and that existing clients' requests and replies fit it.

mod document;
mod surface;
