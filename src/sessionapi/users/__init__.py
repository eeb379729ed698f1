"""Users: sign-up, login, accounts, names and passwords."""
