"""Texts that try to run as code in a browser, as a model may be made to say them."""

from __future__ import annotations

MARK = "data-owned"
"""The attribute of the document that every attack tries to leave behind."""

DO = f"parent.document.documentElement.setAttribute('{MARK}',1)"
"""What every attack tries to leave behind, where no policy of the page's own could hide it."""

ATTACKS = [
    f"<script>{DO}</script>",
    f"<img src=x onerror={DO}>",
    f"<svg onload={DO}><script>{DO}</script></svg>",
    f"<svg><animate onbegin={DO} attributeName=x dur=1s></svg>",
    f"<iframe srcdoc='&lt;script&gt;parent.{DO}&lt;/script&gt;'></iframe>",
    f"<details open ontoggle={DO}>x</details>",
    f"<body onload={DO}><input autofocus onfocus={DO}>",
    f'<a href="javascript:{DO}">press</a>',
    f"[press](javascript:{DO}) javascript:{DO}",
    f'"><script>{DO}</script>',
    f"' onmouseover='{DO}' onclick='{DO}' x='",
    f'" onmouseover="{DO}" autofocus onfocus="{DO}" x="',
    f"</pre></code></details></td></table></svg></style></title><script>{DO}</script>",
    f"<style>@import 'javascript:{DO}'; * {{ background: url(javascript:{DO}) }}</style>",
    f"<math><mtext></p><mglyph><style><img src=x onerror={DO}></style></math>",
    f"<meta http-equiv=refresh content='0;url=javascript:{DO}'>",
    f"<base href='javascript:{DO}//'><form action='javascript:{DO}'><button>press</button></form>",
    f"<object data='javascript:{DO}'></object><embed src='javascript:{DO}'>",
    f"<!--><script>{DO}</script>-->",
    f"\u2028<script>{DO}</script>\u2029\u202e<tpircs>\u2066\x00<scr\x00ipt>{DO}</script>",
    f"&lt;script&gt;{DO}&lt;/script&gt; &#60;script&#62;{DO}&#60;/script&#62;",
    f"{{{{ cycler.__init__.__globals__.os.system('x') }}}}{{% include '/etc/passwd' %}}<script>{DO}</script>",
]
