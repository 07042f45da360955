from aiohttp import web


def add_routes(application: web.Application) -> None: ...
