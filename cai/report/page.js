// Shows the example traces: list, search, filters, one trace at a time. Text is set as text, never as markup.
"use strict";
(() => {
  const box = document.getElementById("browser");
  if (!box) return;
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const [search, principle, mark, split, list, article] =
    ["search", "principle", "mark", "split", "list", "trace"].map(at);
  const number = (value) => value.toLocaleString("en");
  let shown = [];
  let current = null;

  // ---- making elements
  function make(name, kind, ...children) {
    const element = document.createElement(name);
    if (kind) element.className = kind;
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  const text = (content) =>
    content ? make("p", "text", content) : make("p", "none", "empty");

  function cut(hidden) {
    return hidden ? make("p", "cut", `${number(hidden)} more characters are not shown here.`) : null;
  }

  function chip(label, kind, title) {
    const element = make("span", `chip ${kind || ""}`, label);
    if (title) element.title = title;
    return element;
  }

  const done = { drop: "dropped", tag: "tagged", repair: "repaired" };
  const hit = (found) =>
    chip(`${found.gate}: ${done[found.action]}${found.detail ? `, ${found.detail}` : ""}`, found.action);
  const hits = (found) => (found.length ? make("div", "chips", ...found.map(hit)) : null);

  function finish(reason) {
    if (reason === "length") return chip("cut at the token limit", "tag");
    return reason === "filter" ? chip("cut by a filter", "drop") : null;
  }

  function thinking(found) {
    if (!found) return null;
    return make("details", "", make("summary", "", `Reasoning, ${number(found.words)} words`), text(found.text), cut(found.hidden));
  }

  const block = (kind, title, notes, ...children) =>
    make("div", `block ${kind}`, make("h4", "", title, ...notes), ...children);

  const size = (words) => make("small", "", `${number(words)} words`);

  // ---- diffs
  const NAMES = { "0": "span", "1": "ins", "-1": "del" };

  // white space at the ends is not marked as changed
  function piece(name, content) {
    const [, before, inside, after] = content.match(/^(\s*)([^]*?)(\s*)$/);
    return [before, make(name, "", inside), after];
  }

  function pieces(parts, without) {
    const chosen = parts.filter(([sign]) => sign !== without).flatMap(([sign, content]) => piece(NAMES[sign], content));
    return make("p", "text", ...chosen.slice(1));  // the first is white space before the first word
  }

  function difference(diff) {
    const [before, after] = diff.words;
    const notes = diff.hidden.map((hidden, side) =>
      hidden ? make("p", "cut", `${number(hidden)} more characters of the ${side ? "new" : "old"} text are not shown here.`) : null);
    const changed = diff.parts.some(([sign]) => sign !== 0);
    if (!changed) return [make("p", "none", "No word changed."), pieces(diff.parts, -1), ...notes];
    if (!split.checked) return [pieces(diff.parts), ...notes];
    const side = (label, without) => make("div", "", make("b", "", label), pieces(diff.parts, without));
    return [make("div", "sides", side(`before, ${number(before)} words`, 1), side(`after, ${number(after)} words`, -1)), ...notes];
  }

  const change = ([before, after]) => make("small", "", `${number(before)} → ${number(after)} words`);

  // ---- one trace
  const verdicts = { fault: "found a fault", clean: "found nothing", unclear: "no clear conclusion" };

  function step(found) {
    const title = data.principles[found.principle] || found.principle;
    const head = block("quiet", `Round ${found.round + 1}: ${title}`,
      [found.verdict ? chip(verdicts[found.verdict], found.verdict === "fault" ? "tag" : "") : null, finish(found.critique && found.critique.finish)],
      found.critique ? text(found.critique.text) : make("p", "none", "Revised directly, without a critique."),
      found.critique && cut(found.critique.hidden), found.critique && thinking(found.critique.thinking));
    const result = found.diff
      ? block("", "Revision", [change(found.diff.words), finish(found.finish)], make("div", "answer", ...difference(found.diff)), hits(found.gates))
      : found.refused
        ? block("quiet", "Revision, turned away", [size(found.refused.words)], make("div", "answer", text(found.refused.text), cut(found.refused.hidden)), hits(found.gates))
        : block("quiet", "No revision", [], make("p", "none", "The answer stayed as it was."), hits(found.gates));
    return make("div", "round", head, result);
  }

  function turn(message) {
    return make("div", `turn ${message.role}`, make("b", "", message.role), text(message.text), cut(message.hidden));
  }

  function fate(found) {
    if (!found.pair) return chip(`no pair: ${found.what}${found.detail ? `, ${found.detail}` : ""}`, "drop");
    return chip(`pair ${found.what}`, "good");
  }

  function trace(found) {
    const fates = found.fates.length ? found.fates.map(fate) : [chip("no pair")];
    const marks = found.fates.flatMap((one) => one.gates).map(hit);
    const head = make("header", "", make("h3", "", found.sample ? `${found.id} · sample ${found.sample}` : found.id),
      make("div", "chips", ...fates, ...marks, ...found.tags.map((tag) => chip(tag))));
    const draft = block("", "Draft", [size(found.draft.words), finish(found.draft.finish)],
      make("div", "answer", text(found.draft.text), cut(found.draft.hidden), thinking(found.draft.thinking)), hits(found.gates));
    const overall = found.overall
      ? [block("round", "Draft to final answer", [change(found.overall.words)], make("div", "answer", ...difference(found.overall)))]
      : [];
    return [head,
      block("", "Prompt", [], found.earlier ? make("p", "cut", `${number(found.earlier)} earlier turns are not shown here.`) : null, ...found.messages.map(turn)),
      draft, ...found.steps.map(step), ...overall,
      block("round", "Final answer", [size(found.final.words)], make("div", "answer", text(found.final.text), cut(found.final.hidden)))];
  }

  function draw() {
    article.replaceChildren(...(current ? trace(current) : [make("p", "none", "Nothing matches.")]));
    for (const link of list.querySelectorAll("a")) {
      const on = current && link.hash === `#t-${current.key}`;
      if (on) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
      if (on) reveal(link);
    }
  }

  function reveal(link) {
    const [top, end] = [link.offsetTop - list.offsetTop, link.offsetTop - list.offsetTop + link.offsetHeight];
    if (top < list.scrollTop) list.scrollTop = top;
    else if (end > list.scrollTop + list.clientHeight) list.scrollTop = end - list.clientHeight;
  }

  // ---- the list
  const asked = (found) => found.messages[found.messages.length - 1].text.slice(0, 160) || "(empty prompt)";

  function item(found) {
    const link = make("a", "", make("span", "asks", asked(found)),
      make("span", "meta", make("span", "", found.id), make("span", "", `${number(found.draft.words)} → ${number(found.final.words)}`)));
    link.href = `#t-${found.key}`;
    return make("li", "", link);
  }

  function haystack(found) {
    const parts = [found.id, ...found.tags, ...found.messages.map((one) => one.text), found.draft.text, found.final.text];
    for (const one of found.steps) {
      parts.push(one.critique ? one.critique.text : "", one.refused ? one.refused.text : "");
      if (one.diff) parts.push(one.diff.parts.filter(([sign]) => sign >= 0).map(([, content]) => content).join(""));
    }
    return parts.join("\n").toLowerCase();
  }

  function matches(found) {
    if (principle.value && !found.steps.some((one) => one.principle === principle.value)) return false;
    if (mark.value && !found.marks.includes(mark.value)) return false;
    found.hay = found.hay || haystack(found);
    return search.value.toLowerCase().split(/\s+/).every((word) => found.hay.includes(word));
  }

  function filter() {
    shown = data.examples.filter(matches);
    at("found").textContent = `${number(shown.length)} of ${number(data.examples.length)}`;
    list.replaceChildren(...shown.map(item));
    if (!shown.includes(current)) current = shown[0] || null;
    draw();
  }

  function choose(found) {
    if (!found) return;
    history.replaceState(null, "", `#t-${found.key}`);
    current = found;
    draw();
    if (article.getBoundingClientRect().top < 0) article.scrollIntoView();
  }

  const move = (by) => choose(shown[shown.indexOf(current) + by]);

  function follow() {
    const found = data.examples.find((one) => `#t-${one.key}` === location.hash);
    if (!found) return;
    if (!shown.includes(found)) {
      search.value = principle.value = mark.value = "";
      current = found;
      filter();
    }
    current = found;
    draw();
    article.scrollIntoView();
    article.focus({ preventScroll: true });
  }

  // ---- wiring
  function offer(select, values, label) {
    for (const value of values) {
      const option = make("option", "", label(value));
      option.value = value;
      select.append(option);
    }
  }

  const used = new Set(data.examples.flatMap((one) => one.steps.map((each) => each.principle)));
  offer(principle, Object.keys(data.principles).filter((id) => used.has(id)), (id) => data.principles[id] || id);
  offer(mark, [...new Set(data.examples.flatMap((one) => one.marks))].sort(), (value) => value.replace(":", ": "));
  split.checked = matchMedia("(min-width: 70rem)").matches;
  for (const control of [search, principle, mark]) control.addEventListener("input", filter);
  split.addEventListener("change", draw);
  at("previous").addEventListener("click", () => move(-1));
  at("next").addEventListener("click", () => move(1));
  addEventListener("hashchange", follow);
  addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea");
    if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
    const keys = { j: () => move(1), k: () => move(-1), "/": () => { search.focus(); search.scrollIntoView({ block: "center" }); } };
    if (!(event.key in keys)) return;
    event.preventDefault();
    keys[event.key]();
  });
  box.hidden = false;
  filter();
  follow();
})();
