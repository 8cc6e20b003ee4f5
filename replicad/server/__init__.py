"""The three doors. The only floor that imports aiohttp.web."""
