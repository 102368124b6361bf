"""Signed bytes against what was said of them. SIGNED_JSON is a list of objects with `signed_tx` and the fields that it is said to have;
CAST is Foundry's cast."""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import rlp
from eth_account import Account
from eth_account.typed_transactions import TypedTransaction
from eth_utils import keccak, to_checksum_address
from hexbytes import HexBytes

SECP256K1_N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

with open(os.environ["SIGNED_JSON"]) as file:
    SIGNED = json.load(file)


def integer(value):
    return int.from_bytes(bytes(value), "big")


def fields_of(raw: bytes) -> dict:
    """The transaction's fields, and `parity`, `r`, `s`: legacy by its RLP (EIP-155), type 2 by eth-account."""
    if raw[0] == 2:
        tx = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
        assert list(tx["accessList"]) == []
        return {
            "chain_id": tx["chainId"], "nonce": tx["nonce"], "to": tx["to"], "value_wei": tx["value"],
            "data": tx["data"], "gas_limit": tx["gas"], "max_fee_per_gas": tx["maxFeePerGas"],
            "max_priority_fee_per_gas": tx["maxPriorityFeePerGas"], "parity": tx["v"], "r": tx["r"], "s": tx["s"],
        }
    assert raw[0] >= 0xC0, f"a transaction of type {raw[0]}"
    decoded = rlp.decode(raw)
    # Not a byte more or less than the canonical form.
    assert rlp.encode(decoded) == raw
    nonce, gas_price, gas, to, value, data, v, r, s = decoded
    chain_id, parity = divmod(integer(v) - 35, 2)
    return {
        "chain_id": chain_id, "nonce": integer(nonce), "to": to, "value_wei": integer(value), "data": data,
        "gas_limit": integer(gas), "gas_price": integer(gas_price), "parity": parity, "r": integer(r), "s": integer(s),
    }


def differences(found: dict, said: dict):
    """What was said and is not so. A fee that was not said is of the other type and must not be there."""
    for name in ("chain_id", "nonce", "value_wei", "gas_limit", "gas_price", "max_fee_per_gas", "max_priority_fee_per_gas"):
        if name in said:
            expected = None if said[name] is None else int(said[name])
            if found.get(name) != expected:
                yield name, found.get(name), expected
    for name in ("to", "data"):
        if name in said and HexBytes(found[name]) != HexBytes(said[name]):
            yield name, found[name], said[name]


def test_there_is_something_of_each_kind():
    kinds = {(HexBytes(said["signed_tx"])[0] == 2, said["chain_id"] > 2**32, said.get("data", "0x") != "0x") for said in SIGNED}
    assert len(kinds) == 8, kinds


def test_eth_account_reads_what_was_said():
    for said in SIGNED:
        raw = bytes(HexBytes(said["signed_tx"]))
        found = fields_of(raw)
        assert list(differences(found, said)) == [], said
        assert Account.recover_transaction(raw) == to_checksum_address(said["from"])
        assert keccak(raw) == HexBytes(said["tx_hash"])
        assert 0 < found["r"] < SECP256K1_N and 0 < found["s"] <= SECP256K1_N // 2, "the high twin of a signature"
        assert found["parity"] in (0, 1)


def test_cast_reads_what_was_said():
    def decode(said):
        # The bytes go in by standard input.
        run = subprocess.run(
            [os.environ["CAST"], "decode-transaction"], input=said["signed_tx"], capture_output=True, text=True, timeout=60
        )
        assert run.returncode == 0, run.stderr
        # JSON within a string of JSON.
        decoded = json.loads(run.stdout)
        return json.loads(decoded) if isinstance(decoded, str) else decoded

    with ThreadPoolExecutor(2) as threads:
        for said, tx in zip(SIGNED, threads.map(decode, SIGNED)):
            def number(name):
                return None if tx.get(name) is None else int(tx[name], 16)

            found = {
                "chain_id": number("chainId"), "nonce": number("nonce"), "to": tx["to"], "value_wei": number("value"),
                "data": tx["input"], "gas_limit": number("gas"), "max_fee_per_gas": number("maxFeePerGas"),
                "max_priority_fee_per_gas": number("maxPriorityFeePerGas"),
                "gas_price": number("gasPrice") if tx["type"] == "0x0" else None,
            }
            assert list(differences(found, said)) == [], (said, tx)
            assert (HexBytes(tx["hash"]), to_checksum_address(tx["signer"])) == (
                HexBytes(said["tx_hash"]), to_checksum_address(said["from"])
            )
