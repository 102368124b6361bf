//! Simulation as a whole: our client against `intentd simulator`, the routes, what breaks, and the organisations' own choices.

mod endpoints;
mod faults;
mod organisations;
mod round_trip;
mod server;
