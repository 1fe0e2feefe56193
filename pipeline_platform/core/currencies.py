"""The currency that a country pays in: what turns `orders.amount` into money. Add a country by adding a line.

ISO 3166-1 alpha-2 codes to ISO 4217 codes. A country that is not here has no amount in USD, and its rows say so.
"""

from __future__ import annotations

EURO = (
    *("AT", "BE", "BG", "CY", "DE", "EE", "ES", "FI", "FR", "GR", "HR", "IE", "IT", "LT", "LU", "LV", "MT", "NL"),
    *("PT", "SI", "SK"),
)
CURRENCIES: dict[str, str] = {
    **dict.fromkeys(EURO, "EUR"),
    "AU": "AUD",
    "BR": "BRL",
    "CA": "CAD",
    "CH": "CHF",
    "CN": "CNY",
    "CZ": "CZK",
    "DK": "DKK",
    "GB": "GBP",
    "HU": "HUF",
    "IN": "INR",
    "JP": "JPY",
    "KR": "KRW",
    "MX": "MXN",
    "NO": "NOK",
    "NZ": "NZD",
    "PL": "PLN",
    "RO": "RON",
    "SE": "SEK",
    "SG": "SGD",
    "TR": "TRY",
    "US": "USD",
    "ZA": "ZAR",
}
