//! What documents the routes of contract ABIs.

use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::http::api::schemas::{Address, Anything, Id, Name, Time};
use crate::http::api::{Doc, Tag};

/// A contract ABI to be added.
#[derive(ToSchema)]
pub struct CreateContractAbi {
    /// Its name, which no other of the organisation has.
    pub name: Name,
    /// The contract that it belongs to; any contract if not given.
    pub address: Option<Address>,
    /// The JSON ABI: the array itself, that array as a text, or a compiler's artifact with the array under `abi`.
    pub abi: Anything,
}

/// A contract ABI. It gives names to errors and functions, and decides nothing.
#[derive(ToSchema)]
pub struct ContractAbi {
    /// Its id.
    pub id: Id,
    /// Its name.
    pub name: Name,
    /// The contract that it belongs to; `null` is any.
    #[schema(required = true)]
    pub address: Option<Address>,
    /// How many functions it names.
    #[schema(minimum = 0)]
    pub functions: i64,
    /// How many errors it names.
    #[schema(minimum = 0)]
    pub errors: i64,
    /// When it was added.
    pub created_at: Time,
}

/// Contract ABIs.
#[derive(ToSchema)]
pub struct ContractAbiList {
    /// All of them.
    pub contract_abis: Vec<ContractAbi>,
}

fn example() -> Value {
    json!({
        "id": "3a5c7e9b-1d2f-4a4c-8e6b-5d7f9b1d3e5a",
        "name": "market",
        "address": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
        "functions": 0,
        "errors": 1,
        "created_at": "2026-11-21T12:00:00Z",
    })
}

/// List the contract ABIs.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::Simulation, "listContractAbis", "List the contract ABIs").reply::<ContractAbiList>(
        200,
        "The ABIs.",
        json!({"contract_abis": [example()]}),
    )
}

/// Add a contract ABI.
#[must_use]
pub fn create() -> Doc {
    Doc::new(Tag::Simulation, "createContractAbi", "Add a contract ABI")
        .says("It gives names to errors and functions in simulations, and decides nothing. For owners and admins.")
        .body::<CreateContractAbi>(json!({
            "name": "market",
            "address": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
            "abi": [{"type": "error", "name": "Closed", "inputs": []}],
        }))
        .reply::<ContractAbi>(201, "The ABI.", example())
        .problem(409, "There is one of this name already.")
        .problem(422, "There are as many as there may be.")
}

/// Delete a contract ABI.
#[must_use]
pub fn remove() -> Doc {
    Doc::new(Tag::Simulation, "deleteContractAbi", "Delete a contract ABI").empty(204, "It is gone.")
}
