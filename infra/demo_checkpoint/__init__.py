"""The recipe of the demo checkpoint; see README.md. No part of the product imports it."""
