// What the theme leaves out for keyboards and screen readers.

document.querySelector(".md-search")?.setAttribute("aria-label", "Search"); // it is a dialog

/** Code and tables that are wider than the page can be scrolled by keyboard too. */
function reach() {
  for (const wide of document.querySelectorAll(".md-typeset pre > code, .md-typeset__scrollwrap"))
    if (wide.scrollWidth > wide.clientWidth) wide.tabIndex = 0;
}
addEventListener("load", reach);
addEventListener("resize", reach);
