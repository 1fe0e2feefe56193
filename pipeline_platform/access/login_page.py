"""The login page: plain HTML, one style, one tiny script, and the policy that lets a browser run only these two."""

from __future__ import annotations

import base64
import hashlib
import html

from pipeline_platform.access.identity import Identity

_STYLE = """
:root{color-scheme:light dark;--ink:#16202c;--soft:#566474;--paper:#f4f6f8;--card:#fff;--line:#c3ccd6;--go:#1f5fbf;
--on:#fff;--bad:#a4161a;--badpaper:#fdecec}
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf1;--soft:#a3b0bf;--paper:#11161c;--card:#1a212a;--line:#465362;
--go:#8ab4f8;--on:#0b1420;--bad:#ffb3b3;--badpaper:#3a1d20}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:16px;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{width:100%;max-width:400px;background:var(--card);border:1px solid var(--line);border-radius:10px;padding:24px}
h1{font-size:1.35rem;line-height:1.25;margin:0 0 4px}
p{margin:0 0 16px;color:var(--soft)}
label{display:block;font-weight:600;margin:0 0 4px}
.hint{display:block;font-size:.875rem;color:var(--soft);margin:4px 0 16px}
input{width:100%;font:inherit;color:inherit;background:var(--paper);border:1px solid var(--line);border-radius:6px;
padding:10px 12px}
button,.go{display:block;width:100%;margin:0 0 12px;padding:11px 12px;font:inherit;font-weight:600;text-align:center;
text-decoration:none;color:var(--on);background:var(--go);border:1px solid var(--go);border-radius:6px;cursor:pointer}
.quiet{color:var(--ink);background:none;border-color:var(--line)}
:focus-visible{outline:3px solid var(--go);outline-offset:2px}
.said{color:var(--ink);background:var(--paper);border:1px solid var(--line);border-radius:6px;padding:10px 12px}
.bad{color:var(--bad);background:var(--badpaper);border-color:var(--bad)}
code{overflow-wrap:anywhere}
"""
# A one-time code comes behind the #, which no server and no log sees. It leaves the address bar before it is used. For
# somebody who is logged in already it waits for a click: a link must not change who they are behind their back.
_SCRIPT = """
(function(){var m=/^#code=([A-Za-z0-9_-]{20,100})$/.exec(location.hash);if(!m)return;
history.replaceState(null,"",location.pathname+location.search);
var f=document.getElementById("code");f.elements.code.value=m[1];
if(f.dataset.ask)f.hidden=false;else f.submit();})();
"""


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; script-src {_hash(_SCRIPT)}; style-src {_hash(_STYLE)}; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def login_page(*, said: str = "", bad: bool = False, name: str = "", following: str = "/", oidc: bool = False) -> str:
    """The form. `said` is a sentence above it, `following` where a login leads, `name` what was typed before."""
    other = f'<a class="go quiet" href="/login/oidc?next={_quoted(following)}">Log in with single sign-on</a>'
    return _page(
        "Log in",
        f"""<h1>Pipeline Platform</h1><p>Log in to go on.</p>{_said(said, bad)}
<form method="post" action="/login"><input type="hidden" name="next" value="{_quoted(following)}">
<label for="name">User</label>
<input id="name" name="name" value="{_quoted(name)}" maxlength="64" autocomplete="username" autocapitalize="none"
 spellcheck="false" aria-describedby="name-hint">
<span class="hint" id="name-hint">Leave it empty to log in with an API key.</span>
<label for="secret">Password or API key</label>
<input id="secret" name="secret" type="password" maxlength="256" required autocomplete="current-password"
 aria-describedby="secret-hint">
<span class="hint" id="secret-hint">No password? <code>pipeline-platform login</code> prints a link.</span>
<button>Log in</button></form>{other if oidc else ""}{_code_form(following, ask=False)}""",
    )


def known_page(identity: Identity, following: str) -> str:
    """What somebody sees who is logged in already."""
    who = f"{html.escape(identity.name)} ({identity.role})"
    return _page(
        "Logged in",
        f"""<h1>Pipeline Platform</h1><p>You are logged in as <strong>{who}</strong>.</p>
<a class="go" href="{_quoted(following)}">Go on</a>{_code_form(following, ask=True)}
<form method="post" action="/logout"><button class="quiet">Log out</button></form>""",
    )


def away_page(why: str) -> str:
    """What a browser sees while logins cannot be checked."""
    return _page("Not for now", f"<h1>Pipeline Platform</h1>{_said(why, bad=True)}")


def _code_form(following: str, *, ask: bool) -> str:
    asking = ' data-ask="1"' if ask else ""
    return f"""
<form method="post" action="/login/code" id="code" hidden{asking}><input type="hidden" name="code">
<input type="hidden" name="next" value="{_quoted(following)}"><button>Log in with the link instead</button></form>"""


def _said(said: str, bad: bool) -> str:
    if not said:
        return ""
    return f'<p class="said{" bad" if bad else ""}" role="{"alert" if bad else "status"}">{html.escape(said)}</p>'


def _quoted(text: str) -> str:
    return html.escape(text, quote=True)


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title} - Pipeline Platform</title><style>{_STYLE}</style></head>"
        f"<body><main>{body}</main><script>{_SCRIPT}</script></body></html>"
    )
