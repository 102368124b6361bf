//! One small page for whoever has a browser and no `curl`: it answers a device, confirms an address and sets a new password, through the
//! same API as everybody. Codes come behind the `#` of the link, which browsers send to nobody; nothing is kept in the browser.

pub mod http;
