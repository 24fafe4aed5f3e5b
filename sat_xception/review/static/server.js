// `sat_xception review` answers this name with true. From a disk, or another web server, decisions stay in the browser.
window.REVIEW_SERVER = false;
