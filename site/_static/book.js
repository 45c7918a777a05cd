// What a page does: a click on a column's head sorts a table of results, Escape hides a meaning, and the two menus of a
// narrow window, which the theme offers to a mouse alone, open from the keyboard.

// The number that a cell begins with ("81.5 ± 0.2", "1,234", "+0.7"), else null.
const number = text => {
    const found = text.replaceAll(',', '').match(/^[<>=~+\s]*(-?\d+(\.\d+)?(e[-+]?\d+)?)/i)
    return found && parseFloat(found[1])
}

const compare = (a, b) => {
    const [x, y] = [number(a), number(b)]
    if (x !== null && y !== null) return x - y
    return (x === null) - (y === null) || a.localeCompare(b)  // numbers come first
}

function makeSortable(table) {
    const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0]
    heads.forEach((head, column) => {
        const button = document.createElement('button')
        button.type = 'button'
        button.ariaLabel = head.textContent.trim() || '-'
        button.append(...head.childNodes)
        head.append(button)
        button.addEventListener('click', () => {
            const down = head.ariaSort === 'ascending', text = row => row.cells[column].textContent.trim()
            heads.forEach(other => other.removeAttribute('aria-sort'))
            head.ariaSort = down ? 'descending' : 'ascending'
            const rows = [...body.rows].sort((a, b) => compare(text(a), text(b)) * (down ? -1 : 1))
            body.append(...rows.filter(row => text(row)), ...rows.filter(row => !text(row)))  // empty cells last
        })
    })
}

function openByKey(label) {
    label.tabIndex = 0
    label.role = 'button'
    label.ariaLabel = document.getElementById(label.htmlFor).ariaLabel
    label.addEventListener('keydown', event => {
        if (event.key !== 'Enter' && event.key !== ' ') return
        event.preventDefault()
        label.click()
    })
}

document.addEventListener('DOMContentLoaded', () => {
    document.querySelectorAll('.nav-overlay-icon, .toc-overlay-icon').forEach(openByKey)
    if (/\/(results|benchmarks)\//.test(location.pathname)) document.querySelectorAll('article table').forEach(makeSortable)
})
document.addEventListener('keydown', event => {
    if (event.key === 'Escape' && document.activeElement.matches('dfn')) document.activeElement.blur()
})
