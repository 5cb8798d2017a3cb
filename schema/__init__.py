"""The contract: attribute names, dialect tables, table definitions, envelope. No I/O."""
