"""What every API view stands on: keys, scopes, problems, strict bodies, paging, idempotency, rate limits."""
