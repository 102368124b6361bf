//! `Wei` as NUMERIC(78, 0).

use bigdecimal::BigDecimal;
use bigdecimal::num_bigint::{BigInt, Sign};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef, Postgres};
use sqlx::{Decode, Encode, Type};

use crate::money::Wei;
use alloy::primitives::U256;

impl Type<Postgres> for Wei {
    fn type_info() -> PgTypeInfo {
        <BigDecimal as Type<Postgres>>::type_info()
    }
}

impl PgHasArrayType for Wei {
    fn array_type_info() -> PgTypeInfo {
        <BigDecimal as PgHasArrayType>::array_type_info()
    }
}

impl Encode<'_, Postgres> for Wei {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let digits = BigInt::from_bytes_be(Sign::Plus, &self.0.to_be_bytes::<32>());
        <BigDecimal as Encode<Postgres>>::encode_by_ref(&BigDecimal::from(digits), buffer)
    }
}

impl Decode<'_, Postgres> for Wei {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let decimal = <BigDecimal as Decode<Postgres>>::decode(value)?;
        if !decimal.is_integer() {
            return Err("an amount of wei is not an integer".into());
        }
        let (digits, _) = decimal.with_scale(0).into_bigint_and_exponent();
        let (sign, bytes) = digits.to_bytes_be();
        if sign == Sign::Minus || bytes.len() > 32 {
            return Err("an amount of wei is out of range".into());
        }
        Ok(Self(U256::from_be_slice(&bytes)))
    }
}
