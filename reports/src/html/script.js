'use strict';
(() => {
  // Sorting: heads become buttons; the page reads fully without this.
  const units = { M: 1e6, G: 1e9, T: 1e12 };
  const value = (text) => {
    const t = text.trim().replace(/,/g, '').replace(/^[<>]/, '');
    const m = /^(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)([MGT]?)/.exec(t);
    return m ? parseFloat(m[1]) * (units[m[2]] || 1) : t === '-' ? -Infinity : NaN;
  };
  for (const table of document.querySelectorAll('table.sortable')) {
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    heads.forEach((head, column) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener('click', () => {
        const text = head.classList.contains('label');
        const was = head.getAttribute('aria-sort');
        const down = was ? was === 'ascending' : !text;
        for (const h of heads) h.removeAttribute('aria-sort');
        head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
        const body = table.tBodies[0];
        const key = (row) => row.cells[column].textContent;
        const order = (a, b) => text ? key(a).localeCompare(key(b)) : value(key(a)) - value(key(b));
        body.append(...[...body.rows].sort((a, b) => down ? order(b, a) : order(a, b)));
      });
    });
  }

  // Figures over time: the table's row under the pointer.
  const box = document.getElementById('readout');
  for (const figure of document.querySelectorAll('figure[data-readout]')) {
    const edges = figure.dataset.readout.split(' ').map(Number);
    const table = figure.querySelector('table');
    if (!table) continue;
    const heads = [...table.tHead.rows[0].cells].map((c) => c.textContent);
    const rows = [...table.tBodies[0].rows];
    figure.querySelectorAll('svg').forEach((svg, i) => {
      const [left, right] = edges.slice(2 * i, 2 * i + 2);
      svg.addEventListener('pointermove', (event) => {
        const area = svg.getBoundingClientRect();
        const share = ((event.clientX - area.left) / area.width - left) / (right - left);
        const row = rows[Math.floor(share * rows.length)];
        box.hidden = !row;
        if (!row) return;
        box.replaceChildren(...[...row.cells].map((cell, c) => {
          const line = document.createElement('div');
          const name = document.createElement('span');
          const number = document.createElement('b');
          name.textContent = heads[c];
          number.textContent = cell.textContent;
          line.append(name, number);
          return line;
        }));
        const side = event.clientX > innerWidth / 2 ? -box.offsetWidth - 14 : 14;
        box.style.left = `${Math.max(4, event.clientX + side)}px`;
        box.style.top = `${Math.max(4, Math.min(event.clientY + 14, innerHeight - box.offsetHeight - 4))}px`;
      });
      svg.addEventListener('pointerleave', () => { box.hidden = true; });
    });
  }
})();
