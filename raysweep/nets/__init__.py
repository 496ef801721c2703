"""Networks shared by the stages."""
